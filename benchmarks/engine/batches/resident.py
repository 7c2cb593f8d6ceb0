"""A data set of small pictures, decoded once and held where the model computes: no decoding and no copy in a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.engine.randomness import training_places
from benchmarks.engine.running.options import LIMIT_GIB
from tasks.contract import Batch, Task

READ_AT_ONCE = 256


class Stored(Dataset):
    """`stored[i]` -> (i, image, target), before anything random."""

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[int, Any, Any]:
        return (index, *self.dataset.stored(index))


class Resident:
    """All pictures and targets of a split on one device.

    Example: `Resident(batch_of_all).batch(torch.tensor([3, 1, 2])).images.shape[0] == 3`
    """

    def __init__(self, whole: Batch):
        self.whole, self.device = whole, whole.ids.device

    def batch(self, index: Tensor) -> Batch:
        """The pictures at `index` int64 [B], which lies on the CPU; does not wait for the device."""
        there = index.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else index
        return self.whole.mapped(lambda tensor: tensor.index_select(0, there))

    def steps(
        self, seed: int, first: int, steps: int, batch: int, rank: int, world: int
    ) -> Iterator[tuple[int, Batch]]:
        """Each step from `first` on with its batch, this process's share: the pictures that a loader would read."""
        for step in range(first, steps):
            index, _ = training_places(seed, step, batch, len(self.whole))
            yield step, self.batch(torch.from_numpy(index[rank::world].copy()))


class Residents:
    """Keeps the last split that was read, for the next training on the same pictures.

    Example: `Residents(2.0, print).of(task, task.dataset("train"), torch.device("cuda"), workers=8)`
    """

    def __init__(self, limit_gib: float = LIMIT_GIB, say: Callable[[str], None] = print):
        self.limit_gib, self.say = limit_gib, say
        self._kept: tuple[Any, Resident] | None = None

    def of(self, task: Task, dataset: Any, device: torch.device, workers: int = 0) -> Resident | None:
        """The split held on `device`; None where it offers no stored pictures, or cannot be held, which is printed."""
        if not hasattr(dataset, "stored") or not self.limit_gib:
            return None
        # a fingerprint is that of the data: options decide which targets go with it
        key = (task.fingerprint("train"), type(task), tuple(task.options.stage("train").items()), str(device))
        if self._kept is None or self._kept[0] != key:
            self._kept = None  # freed before the next is read
            held = self._read(task, dataset, device, workers)
            if held is None:
                return None
            self._kept = key, held
        return self._kept[1]

    def _read(self, task: Task, dataset: Any, device: torch.device, workers: int) -> Resident | None:
        count, size = len(dataset), dataset.stored(0)[0].numel()
        if count * size > self.limit_gib * 2**30:
            needed = f"{count} pictures of {size} bytes need {count * size / 2**30:.1f} GiB"
            self.say(f"  {needed}, above --resident-gib {self.limit_gib}: pictures are read for each step instead")
            return None
        whole: Batch | None = None
        found: Batch
        loader = DataLoader(Stored(dataset), READ_AT_ONCE, num_workers=workers, collate_fn=task.collate)
        for found in loader:
            if not (isinstance(found.images, Tensor) and _tensors(found.targets)) or _differ(found, whole):
                self.say("  pictures or targets differ in size and cannot be held: they are read for each step instead")
                return None
            found = found.to(device)
            whole = whole or found.mapped(lambda t: torch.empty((count, *t.shape[1:]), dtype=t.dtype, device=device))
            _copy(found, whole, int(found.ids[0]))
        return Resident(whole) if whole is not None else None


def _differ(found: Batch, whole: Batch | None) -> bool:
    """Whether its pictures are of another size than those that were read before."""
    if whole is None:
        return False
    here, there = found.images, whole.images
    return isinstance(here, Tensor) and isinstance(there, Tensor) and here.shape[1:] != there.shape[1:]


def _tensors(targets: Any) -> bool:
    """Whether nothing but tensors and dicts of tensors is in it."""
    return all(map(_tensors, targets.values())) if isinstance(targets, dict) else isinstance(targets, Tensor)


def _copy(part: Batch, whole: Batch, start: int) -> None:
    into: list[Tensor] = []

    def listed(tensor: Tensor) -> Tensor:
        into.append(tensor)
        return tensor

    whole.mapped(listed)
    targets = iter(into)
    part.mapped(lambda tensor: next(targets)[start : start + len(tensor)].copy_(tensor))
