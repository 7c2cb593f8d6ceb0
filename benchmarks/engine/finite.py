"""Every number is finite or is a failure: what a model gives, what it keeps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from tasks.contract import TaskError


class Diverged(TaskError):
    """A loss, a gradient, a weight or a prediction that is not finite."""


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All floating tensors of nested mappings, sequences and dataclasses.

    Example: `all(t.isfinite().all() for t in tensors_in(features))`
    """
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors_in(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)


def broken_weight(model: nn.Module) -> str | None:
    """The first parameter or buffer that is not finite, by its name.

    Example: `broken_weight(model)` is None after a training that went well
    """
    named = [(name, value) for name, value in model.state_dict().items() if value.is_floating_point()]
    if not named or bool(torch.stack([value.isfinite().all() for _, value in named]).all()):
        return None
    return next(name for name, value in named if not bool(value.isfinite().all()))


def check_step(values: Mapping[str, float | Tensor], step: int, rate: float) -> None:
    """The loss and the norm of the gradient. Raises Diverged for the first that is not finite.

    Example: `check_step({"loss": 2.3, "grad_norm": 1.0}, step=7, rate=0.01)`
    """
    for name, told in (("loss", "loss"), ("grad_norm", "gradient norm")):
        if not math.isfinite(value := float(values.get(name, 0.0))):
            raise Diverged(f"{told} is {value} at step {step}: lower the learning rate ({rate})")


class Watch:
    """Looks at what the parts of a model give: argmax and rank turn NaN into numbers that look like any other.

    Watched are the model and its direct parts. Of the backbone everything must be finite; other parts may give
    infinities (masks), but not NaN.

    Example::

        with Watch(model) as watch:
            records = task.predict(model, batch, grid, prepared)
            problem = watch.problem(records)
    """

    def __init__(self, model: nn.Module):
        self._model = model
        self._flags: dict[Any, Any] = {}
        self._hooks: list[Any] = []

    def __enter__(self) -> Self:
        for name, part in {"the model": self._model, **dict(_parts(self._model))}.items():
            strict = name == "backbone"
            self._hooks.append(part.register_forward_hook(lambda m, i, out, n=name, s=strict: self._look(n, s, out)))
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _look(self, name: str, strict: bool, out: Any) -> None:
        for value in tensors_in(out):
            bad = _broken(value, strict)
            self._flags[name] = self._flags[name] | bad if name in self._flags else bad

    def problem(self, records: Mapping[str, Any]) -> str | None:
        """What was not finite since the last call, or is not in `records`; None where all is well."""
        flags, self._flags = self._flags, {}
        flags |= {f"record {n!r}": _broken(t) for n, v in records.items() for t in tensors_in(v)}
        if not flags or not bool(torch.stack([f.to("cpu", torch.bool) for f in flags.values()]).any()):
            return None
        return next(name if " " in name else f"the output of {name}" for name, flag in flags.items() if bool(flag))


def _broken(value: Tensor, strict: bool = True) -> Tensor:
    """Whether a tensor holds NaN, or, where that is `strict`, an infinity; of shape (), on its device."""
    if not value.numel():
        return value.new_zeros((), dtype=torch.bool)
    low, high = value.aminmax()  # NaN is handed on by both; one pass, where isfinite().all() makes four
    return ~(low.isfinite() & high.isfinite()) if strict else low.isnan()


def _parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, part in model.named_children():
        if isinstance(part, nn.ModuleList | nn.ModuleDict):
            yield from ((f"{name}.{inner}", child) for inner, child in _parts(part))
        else:
            yield name, part
