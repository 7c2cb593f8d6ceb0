"""Resized kernels and positions, kept as long as the values that they were made of."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

Made = tuple[Tensor, Tensor | None]

# Fused optimizers change weights without moving their version counter, so each optimizer step moves this one.
_steps = 0


def _count_step(*_: object) -> None:
    global _steps
    _steps += 1


register_optimizer_step_post_hook(_count_step)


def _bits(tensor: Tensor) -> np.ndarray:
    """The bytes of a CPU tensor; a view where it is contiguous."""
    return tensor.detach().contiguous().view(-1).view(torch.uint8).numpy()


class ResizedKernels:
    """Keeps what was made of some base tensors, until a value of theirs changes.

    On a CPU the bits of the bases are compared with a copy at each call: 0.1 ms for a nano model, 0.5 ms for a B. A
    GPU would have to wait for such a comparison; there something is kept only while a view is bound (`frozen`), and
    given up when a version counter moves or an optimizer steps; without, it is made anew at each call.
    """

    def __init__(self) -> None:
        self._made: dict[Hashable, Made] = {}
        self._copies: list[bytearray] = []
        self._versions: tuple = ()

    def __len__(self) -> int:
        return len(self._made)

    def __getstate__(self) -> dict[str, object]:
        return {}

    def __setstate__(self, state: object) -> None:
        self.drop()

    def drop(self) -> None:
        """Forget everything."""
        self._made, self._copies, self._versions = {}, [], ()

    def get(self, key: Hashable, bases: list[Tensor], make: Callable[[], Made], frozen: bool) -> Made:
        """`make()`, or what it gave for the same key and bases of the same values."""
        on_cpu = all(t.device.type == "cpu" for t in bases)
        if not (on_cpu or frozen):
            return make()
        versions = _versions(bases, values=not on_cpu)
        if versions != self._versions or (on_cpu and not self._equal(bases)):
            self.drop()
            self._versions = versions
            self._copies = [bytearray(_bits(t)) for t in bases] if on_cpu else []
        if key not in self._made:
            # a tensor made under inference_mode could never be used by autograd later
            with torch.inference_mode(False), torch.no_grad():
                self._made[key] = make()
        return self._made[key]

    def _equal(self, bases: list[Tensor]) -> bool:
        # a bytearray compares itself with any buffer by memcmp, half the time of numpy's or torch's comparisons
        return all(copy == _bits(base) for copy, base in zip(self._copies, bases, strict=True))


def _versions(bases: list[Tensor], values: bool) -> tuple:
    """Shapes and types of tensors, and with `values` what moves when an operator or an optimizer changes them."""
    kinds = tuple((t.shape, t.dtype) for t in bases)
    if not values:
        return kinds
    # inference tensors have no version: autograd never sees them
    return kinds, _steps, tuple((t.data_ptr(), -1 if t.is_inference() else t._version) for t in bases)
