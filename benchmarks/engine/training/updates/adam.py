"""AdamW whose first moment is kept in bfloat16, as big_vision's recipes keep it (optax `mu_dtype`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch


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
            first, second = group["betas"]
            decay = float(torch.tensor(first, dtype=torch.bfloat16))
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"] = 0
                    state["mean"] = torch.zeros_like(parameter, dtype=torch.bfloat16)
                    state["square"] = torch.zeros_like(parameter)
                state["step"] += 1
                # a checkpoint gives the moment back in the parameter's type, with bfloat16 values
                mean = (state["mean"].to(torch.bfloat16) * decay).float() + (1 - first) * gradient
                state["mean"] = mean.to(torch.bfloat16)
                state["square"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
                scale = (state["square"] / (1 - second ** state["step"])).sqrt_().add_(group["eps"])
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.addcdiv_(mean / (1 - first ** state["step"]), scale, value=-group["lr"])
        return loss
