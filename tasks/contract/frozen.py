"""Towers and teachers that are never trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Frozen(nn.Module):
    """A locked tower or teacher: always in eval mode, no gradients, outside optimizer, EMA and checkpoints.

    Its weights are not in `state_dict()`; the runner hashes them into the train key instead.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        # kept off the module tree so that checkpoints and `.train()` never reach it
        self.__dict__["module"] = module.eval().requires_grad_(False)

    def _apply(self, fn: Any, recurse: bool = True) -> Frozen:
        self.__dict__["module"]._apply(fn)
        return super()._apply(fn, recurse)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            return self.__dict__["module"](*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            return super().__getattr__(name)
        return getattr(self.__dict__["module"], name)


def keep_in_bfloat16(model: nn.Module) -> int:
    """Keep the matrices of every locked tower in bfloat16, for use under bfloat16 autocast; bytes that this saves.

    Autocast rounds them so at each call: results are the same to the bit. Patch kernels, norms and positions stay as
    they are, because resizing and normalising compute in float32.

    Example: `keep_in_bfloat16(task.model(build_backbone("flexivit_b_i1k")))`
    """
    saved = 0
    for frozen in [m for m in model.modules() if isinstance(m, Frozen)]:
        for layer in frozen.module.modules():
            if isinstance(layer, nn.Linear) and layer.weight.dtype == torch.float32:
                layer.to(torch.bfloat16)
                saved += 2 * sum(p.numel() for p in layer.parameters())
    return saved
