"""Batches that wait until they fill a forward pass together: a coarse grid has little to do with one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tasks.contract import Batch


class Waiting:
    """Batches of one view, given out in groups of at most `room` pictures.

    How they are grouped depends on them and on `room` alone, not on what else a sweep looks at.

    Example: `for group in waiting.add(batch, 2048): records = predict(joined(group))`
    """

    def __init__(self) -> None:
        self._batches: list[Batch] = []

    def add(self, batch: Batch, room: int) -> Iterator[list[Batch]]:
        """The groups that are full with `batch`, in order; it is given out alone where nothing may join it."""
        if self._batches and (self._count + len(batch) > room or not joinable(self._batches[0], batch)):
            yield self.rest()
        self._batches.append(batch)
        # the next one is as large, but for the last
        if self._count + len(batch) > room or not isinstance(batch.images, Tensor):
            yield self.rest()

    def rest(self) -> list[Batch]:
        """What still waits; none of it does afterwards."""
        found, self._batches = self._batches, []
        return found

    @property
    def _count(self) -> int:
        return sum(map(len, self._batches))


def joinable(one: Batch, other: Batch) -> bool:
    """Whether two batches can be one: pictures of one size, and targets that differ in nothing but their number."""
    return _fit(one.images, other.images) and _fit(one.targets, other.targets) and _fit(one.features, other.features)


def joined(batches: Sequence[Batch]) -> Batch:
    """One batch of several, in order; of a single one itself.

    Example: `len(joined([batch, batch])) == 2 * len(batch)`
    """
    if len(batches) == 1:
        return batches[0]
    parts = ((b.ids, b.images, b.targets, b.features) for b in batches)
    return Batch(*(_together(values) for values in zip(*parts, strict=True)))


def apart(records: Mapping[str, Tensor], batches: Sequence[Batch]) -> Iterator[tuple[dict[str, Tensor], Batch]]:
    """Records of a joined batch as those of each of its parts.

    Raises: ValueError for a record that has not an entry for each sample.
    """
    if len(batches) == 1:
        yield dict(records), batches[0]
        return
    start, count = 0, sum(map(len, batches))
    for name, value in records.items():
        if len(value) != count:
            raise ValueError(f"record {name} has {len(value)} entries for {count} samples")
    for batch in batches:
        yield {name: value[start : start + len(batch)] for name, value in records.items()}, batch
        start += len(batch)


def _fit(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        same = isinstance(other, Tensor) and one.ndim > 0 and one.shape[1:] == other.shape[1:]
        return same and one.dtype == other.dtype
    if isinstance(one, Mapping):
        return isinstance(other, Mapping) and one.keys() == other.keys() and all(_fit(one[k], other[k]) for k in one)
    if isinstance(one, tuple) and type(one) is tuple:
        return type(other) is tuple and len(one) == len(other) and all(map(_fit, one, other))
    return (one is None and other is None) or (type(one) is list and type(other) is list)


def _together(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat(list(values))
    if isinstance(first, Mapping):
        return {name: _together([v[name] for v in values]) for name in first}
    if isinstance(first, tuple):
        return tuple(_together(parts) for parts in zip(*values, strict=True))
    return None if first is None else [item for value in values for item in value]
