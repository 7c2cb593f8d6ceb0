"""Batches of a split for evaluation, and how many of their images go into one forward pass."""

from __future__ import annotations

from torch.utils.data import DataLoader, Dataset

from benchmarks.engine.batches.skipping import CollateRead, Skipping
from tasks.contract import Task, TaskError, View


class Numbered(Dataset):
    """`numbered[i] -> (i, image, target)`, what `Task.collate` takes."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[int, object, object]:
        return (index, *self.dataset[index])


def eval_batches(
    task: Task,
    split: str,
    batch: int,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    skip: bool = False,
    pin: bool = False,
    limit: int | None = None,
) -> DataLoader:
    """Batches of a split in order; each process takes every `world`-th batch, none is padded or repeated.

    With `skip` they come as `CollateRead` gives them. `pin`: in memory that a GPU reads by itself. `limit`: only the
    samples that `Task.smoke` names.

    Raises: TaskError for an empty split.
    """
    dataset: Dataset = Numbered(task.dataset(split))
    if not len(dataset):  # type: ignore[arg-type]
        raise TaskError(f"split {split!r} of {task.card.name} is empty")
    count: int = len(dataset)  # type: ignore[arg-type]
    places = range(count) if limit is None else task.smoke(split, count, limit)
    batches = [list(places[i : i + batch]) for i in range(0, len(places), batch)][rank::world]
    if not skip:
        return DataLoader(
            dataset, batch_sampler=batches, num_workers=workers, collate_fn=task.collate, pin_memory=pin
        )  # fmt: skip
    return DataLoader(
        Skipping(dataset), batch_sampler=batches, num_workers=workers, collate_fn=CollateRead(task.collate),
        pin_memory=pin,
    )  # fmt: skip


class Budget:
    """Tokens of a forward pass. `None` never cuts a batch until memory runs out; then it halves."""

    def __init__(self, tokens: int | None = None):
        self.tokens = tokens

    def images(self, view: View, count: int) -> int:
        """How many of `count` images go into one pass at this view."""
        per_image = view.grid[0] * view.grid[1]
        return count if self.tokens is None else max(1, min(count, self.tokens // per_image))

    def halve(self, view: View, images: int) -> None:
        """Half of `images` at this view from now on."""
        self.tokens = max(1, images // 2) * view.grid[0] * view.grid[1]
