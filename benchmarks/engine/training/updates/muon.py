"""Muon for the matrices of the blocks, AdamW for the rest, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the Newton-Schulz iteration (Jordan 2024)
ITERATIONS = 5
RMS = 0.2  # of an update, as AdamW's are (Moonlight, Liu et al. 2025)


def orthogonalised(matrices: Tensor) -> Tensor:
    """[N, r, c] to about the nearest semi-orthogonal matrix of each; in bfloat16 on a GPU, which has units for it.

    Example: `orthogonalised(torch.randn(6, 384, 128)).shape`
    """
    a, b, c = COEFFICIENTS
    x = matrices.bfloat16() if matrices.is_cuda else matrices.float()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class MuonAdamW(torch.optim.AdamW):
    """Groups marked `muon: True` hold matrices and are updated by Muon (momentum .95, Nesterov), others by AdamW.

    Updates are scaled to the size of AdamW's, so that one learning rate and one decay serve both. It is
    `torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`, all matrices of one shape in one product.

    Example: `MuonAdamW([{"params": matrices, "muon": True}, {"params": others}], lr=2e-3)`
    """

    MOMENTUM = 0.95

    def __init__(self, params: Iterable[Any], **options: Any):
        super().__init__(params, **options)
        for group in self.param_groups:
            group.setdefault("muon", False)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        every = self.param_groups
        try:
            self.param_groups = [g for g in every if not g["muon"]]
            loss = super().step(closure)
        finally:
            self.param_groups = every
        for group in every:
            if group["muon"]:
                self._turn(group)
        return loss

    def _turn(self, group: dict[str, Any]) -> None:
        shapes: dict[torch.Size, list[Tensor]] = {}
        for parameter in group["params"]:
            if parameter.grad is not None:
                shapes.setdefault(parameter.shape, []).append(parameter)
        for shape, parameters in shapes.items():
            gradients = [p.grad for p in parameters if p.grad is not None]
            momenta: list[Tensor] = []
            for parameter in parameters:
                state = self.state[parameter]
                if not state:
                    state["step"] = torch.zeros(())  # AdamW looks for it when a state is loaded
                    state["momentum"] = torch.zeros_like(parameter)
                momenta.append(state["momentum"])
            torch._foreach_lerp_(momenta, gradients, 1 - self.MOMENTUM)
            ahead = torch._foreach_lerp(gradients, momenta, self.MOMENTUM)
            turned = orthogonalised(torch.stack(ahead)).to(parameters[0].dtype)
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            scale = RMS * max(shape) ** 0.5
            torch._foreach_add_(parameters, list(turned.unbind()), alpha=-group["lr"] * scale)
