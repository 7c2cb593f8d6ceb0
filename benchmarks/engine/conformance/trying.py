"""Promises tried one after another: a line each, and what the ones before have left."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tasks.contract import Task

CLOSE = 1e-4  # a batch and its parts: kernels of other sizes round otherwise


class Broken(AssertionError):
    """What violates the contract."""


def require(promise: bool, otherwise: str) -> None:
    """Raises Broken with `otherwise` where the promise is not kept."""
    if not promise:
        raise Broken(otherwise)


class Trial:
    """Lines of what was tried, `ok` or `FAIL`, and what each promise gave.

    Example: `trial.attempt("model", lambda: task.model(encoder)); trial.held["model"]`
    """

    def __init__(self) -> None:
        self.held: dict[str, Any] = {}
        self.lines: list[str] = []

    def attempt(self, name: str, promise: Callable[[], Any]) -> bool:
        """Whether the promise was kept. A text that it gives is told behind the line."""
        try:
            self.held[name] = found = promise()
        except Exception as error:  # whatever a plug-in raises is what is to be told
            told = f"{type(error).__name__}: {error}".splitlines()[0]
            self.lines.append(f"FAIL {name}: {told}")
            return False
        self.lines.append(f"ok   {name}" + (f": {found}" if isinstance(found, str) and found else ""))
        return True


def others(value: Any, declared: tuple[Any, ...]) -> Iterator[Any]:
    """Other values of an option that may be tried: those that it declares, else neighbours of its own."""
    if declared:
        yield from (v for v in declared if v != value)
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value + 1, value - 1, 2 * value + 1, 24, 48)
    elif isinstance(value, float):
        yield from (value / 2, value * 2, value + 0.1, 0.3, 0.7)


def same(one: Any, other: Any) -> bool:
    """Equal to the last bit: tensors and arrays by value and type, containers item by item.

    Example: `same({"a": torch.ones(2)}, {"a": torch.ones(2)})`
    """
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        alike = isinstance(one, Tensor) and isinstance(other, Tensor) and one.dtype == other.dtype
        return alike and one.shape == other.shape and torch.equal(one.nan_to_num(-7.0), other.nan_to_num(-7.0))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


class Few(torch.utils.data.Dataset):
    """Some samples from all over a data set: files are often sorted by class."""

    def __init__(self, dataset: Any, count: int):
        self.dataset, count = dataset, min(count, len(dataset))
        self.places = [i * len(dataset) // count for i in range(count)]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, i: int) -> Any:
        return self.dataset[self.places[i]]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("dataset", "places"):
            raise AttributeError(name)
        found = getattr(self.dataset, name)
        if name in ("sample", "target"):
            return lambda i, *more: found(self.places[i], *more)
        return found


def shortened(task: Task, count: int) -> Task:
    """The task over the first `count` samples of each split."""
    own = copy.copy(task)
    whole = type(task).dataset

    def dataset(split: str) -> Few:
        return Few(whole(own, split), count)

    own.dataset = dataset  # type: ignore[method-assign]
    return own


def shaken(model: nn.Module, amount: float = 0.02) -> nn.Module:
    """Noise on all trained weights: a head that starts at zero says the same of every picture."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.add_(amount * torch.randn_like(parameter))
    return model
