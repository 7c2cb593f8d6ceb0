"""Training pictures before training: what a model wants to know of them, told the same way in every process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.engine.batches.skipping import CollateRead, Skipping
from benchmarks.engine.randomness import training_indices
from tasks.contract import Batch, Grid, Task

LIMIT = 8192  # pictures: means and variances of features are then known to about one per cent
BATCH = 64


def tell_statistics(
    task: Task,
    model: nn.Module,
    drawn: Dataset,
    count: int,
    grids: Sequence[Grid],
    seed: int,
    device: torch.device | str,
    workers: int = 0,
) -> None:
    """Call `Task.before_training` with the first training pictures, where a task has one of its own.

    Each process reads all of them, in batches of a fixed size: the outcome does not depend on how batches are cut or
    on how many processes there are.

    Args:
        drawn: `drawn[(index, epoch)] -> (index, image, target)`. count: of its images. grids: in turn.
    """
    if type(task).before_training is Task.before_training:
        return
    steps = -(-min(count, LIMIT) // BATCH)
    places = [training_indices(seed, step, min(BATCH, count), count) for step in range(steps)]
    loader = DataLoader(
        Skipping(drawn), batch_sampler=places, num_workers=workers, collate_fn=CollateRead(task.collate)
    )  # fmt: skip

    def batches() -> Iterator[tuple[Batch, Grid]]:
        for step, (batch, _) in enumerate(loader):
            if batch is not None:  # the training itself says which pictures cannot be read
                yield batch.to(device), grids[step % len(grids)]

    training = model.training
    with torch.no_grad():
        task.before_training(model.eval(), batches())
    model.train(training)
