"""AdamW whose first moment is kept in bfloat16, as big_vision's recipes keep it (optax `mu_dtype`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class AdamWBf16(torch.optim.Optimizer):
    """Updates of optax's `scale_by_adam(mu_dtype="bfloat16")` with torch's decoupled decay (times the learning rate).

    The decay of the moment is a product in bfloat16, where .9 is .8984; the bias is corrected for .9. The update is
    made of the sum before it is rounded.

    Example: `AdamWBf16([{"params": kernels, "weight_decay": 0.1}], lr=1e-3)`
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):  # fmt: skip
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if parameters := [p for p in group["params"] if p.grad is not None]:
                self._update(group, parameters)
        return loss

    def _update(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        """All parameters of a group at once: on a GPU a few kernels, not a dozen for each."""
        first, second = group["betas"]
        decay = float(torch.tensor(first, dtype=torch.bfloat16))
        gradients = [p.grad for p in parameters if p.grad is not None]
        states = [self.state[p] for p in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            if not state:
                state["step"] = 0
                state["mean"] = torch.zeros_like(parameter, dtype=torch.bfloat16)
                state["square"] = torch.zeros_like(parameter)
            state["step"] += 1
        # a checkpoint gives the moment back in the parameter's type, with bfloat16 values
        decayed = torch._foreach_mul([state["mean"].to(torch.bfloat16) for state in states], decay)
        means = torch._foreach_mul(gradients, 1 - first)
        torch._foreach_add_(means, [mean.float() for mean in decayed])
        for state, mean in zip(states, means, strict=True):
            state["mean"] = mean.to(torch.bfloat16)
        squares = [state["square"] for state in states]
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - second)
        scales = torch._foreach_div(squares, [1 - second ** state["step"] for state in states])
        torch._foreach_sqrt_(scales)
        torch._foreach_add_(scales, group["eps"])
        torch._foreach_div_(means, [1 - first ** state["step"] for state in states])
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_addcdiv_(parameters, means, scales, value=-group["lr"])
