"""Batches of a split for evaluation, and how many of their images go into one forward pass."""

from __future__ import annotations

from torch.utils.data import DataLoader, Dataset

from benchmarks.engine.batches.skipping import CollateRead, Skipping
from tasks.contract import Task, TaskError

MOST_JOINED = 2048  # pictures of 240 pixels a side: 1.4 GB of float32, which waits on the device


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
    """Tokens of a forward pass: what is more is cut, and what is less is joined with the batches after it.

    `None` joins nothing, and cuts nothing until memory runs out; then it halves.

    Args: most: pictures of a joined pass.

    Example: `Budget(57_600).room(25)` is 2048, and `Budget(57_600).images(900, 512)` is 64
    """

    def __init__(self, tokens: int | None = None, most: int = MOST_JOINED):
        self.tokens, self.most = tokens, most
        self.joins = tokens is not None  # not where a budget only came of memory that ran out

    def images(self, cells: int, count: int) -> int:
        """How many of `count` images of so many tokens go into one pass."""
        return count if self.tokens is None else max(1, min(count, self.tokens // cells))

    def room(self, cells: int) -> int:
        """How many images of so many tokens batches are joined to; 0: each batch is passed on as it comes."""
        return min(self.most, self.tokens // cells) if self.joins and self.tokens is not None else 0

    def halve(self, cells: int, images: int) -> None:
        """Half of `images` of so many tokens from now on."""
        self.tokens = max(1, images // 2) * cells
