"""A batch as the runner sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def slice_targets(targets: Any, index: slice) -> Any:
    """Cut dicts, tuples, lists and tensors along the batch."""
    if isinstance(targets, Mapping):
        return {k: slice_targets(v, index) for k, v in targets.items()}
    if isinstance(targets, tuple):
        return tuple(slice_targets(v, index) for v in targets)
    return targets[index] if targets is not None else None


def mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The same dicts, tuples and lists with `function` of every tensor inside.

    Example: `mapped({"boxes": [boxes]}, lambda tensor: tensor.to("cuda"))`
    """
    from torch import Tensor

    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {k: mapped(v, function) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(mapped(v, function) for v in value)
    return value


@dataclass(frozen=True)
class Widths:
    """How much of each padded axis an example fills, as numbers of the host: asking for them waits for no device.

    Part of a batch's targets; cut with it. Example: `Widths(((3, 12), (5, 9)))[:2].largest()` is `(5, 12)`
    """

    examples: tuple[tuple[int, ...], ...]

    def __getitem__(self, index: slice) -> Widths:
        return Widths(self.examples[index])

    def largest(self) -> tuple[int, ...]:
        """The widest of the batch on each axis."""
        return tuple(map(max, zip(*self.examples, strict=True)))


@dataclass
class Batch:
    """A batch as the runner sees it: `len(batch)`, `batch[2:6]`, `batch.to(device)`, `batch.pin_memory()`.

    `ids` int64 [B] are dataset indices; `images` uint8 [B,3,H,W], or a list of uint8 [3,h,w] where sizes differ, or
    float [B,3,H,W] already normalised; `targets` is whatever `slice_targets` can cut; `features` is what
    `Task.locked_encoder` gave for the images, where the runner has kept it (then `images` is empty).
    """

    ids: Tensor
    images: Tensor | list[Tensor]
    targets: Any = None
    features: Any = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: slice) -> Batch:
        return Batch(
            self.ids[index], self.images[index], slice_targets(self.targets, index), slice_targets(self.features, index)
        )

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """`function` of every tensor."""
        return Batch(*(mapped(value, function) for value in (self.ids, self.images, self.targets, self.features)))

    def to(self, device: torch.device | str) -> Batch:
        """On `device`; out of pinned memory the call does not wait for the copy."""
        return self.mapped(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """In memory that a GPU reads by itself; what `DataLoader(pin_memory=True)` calls."""
        return self.mapped(lambda tensor: tensor.pin_memory())
