"""What a locked tower gives for training images, computed once for each grid and kept on disk."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sized
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.engine.batches.evaluation import Numbered
from benchmarks.store import key_of, write_atomically
from tasks.contract import Grid, Task, TaskError


class LockedFeatures:
    """A table `[images of train, ...]` for each grid: training under a locked tower then costs no image forward.

    Args:
        folder: where the tables lie; a table is read from there when it exists.
        identity: all that decides an embedding besides the grid: weights, data, precision, preprocessing.
        say: told when a table is computed.

    Example: `batch.features = LockedFeatures(task, encode, folder, {"weights": h}, "cpu", 64)((8, 8))[batch.ids]`
    """

    def __init__(
        self,
        task: Task,
        encode: Callable[[Tensor, Grid], Tensor],
        folder: Path,
        identity: Mapping[str, Any],
        device: torch.device | str = "cpu",
        batch: int = 64,
        workers: int = 0,
        autocast: Callable[[], Any] = contextlib.nullcontext,
        say: Callable[[str], None] = lambda text: None,
    ):
        self.task, self.encode, self.folder, self.identity, self.say = task, encode, folder, dict(identity), say
        self.device, self.batch, self.workers, self.autocast = device, batch, workers, autocast
        self._tables: dict[Grid, Tensor] = {}

    def __call__(self, grid: Grid) -> Tensor:
        """float32 table of a grid, on the CPU.

        Raises: TaskError for a file that is broken or of another length.
        """
        if grid not in self._tables:
            self._tables[grid] = self._read(grid) if self.path(grid).exists() else self._compute(grid)
        return self._tables[grid]

    def path(self, grid: Grid) -> Path:
        return self.folder / f"{key_of({**self.identity, 'grid': list(grid)})}.pt"

    def _read(self, grid: Grid) -> Tensor:
        path, dataset = self.path(grid), cast(Sized, self.task.dataset("train"))
        count = len(dataset)
        try:
            table = torch.load(path, weights_only=True)
        except Exception as error:
            raise TaskError(f"{path} is broken, delete it: {error}") from error
        if len(table) != count:
            raise TaskError(f"{path} holds {len(table)} embeddings for {count} images, delete it")
        return table

    @torch.no_grad()
    def _compute(self, grid: Grid) -> Tensor:
        dataset, begin, parts = Numbered(self.task.dataset("train")), time.perf_counter(), []
        loader = DataLoader(dataset, self.batch, num_workers=self.workers, collate_fn=self.task.collate)
        for found in loader:
            with self.autocast():
                parts.append(self.encode(found.to(self.device).images, grid).float().cpu())
        table = torch.cat(parts)
        write_atomically(self.path(grid), lambda partial: torch.save(table, partial))
        rate = len(table) / (time.perf_counter() - begin)
        self.say(f"  {len(table)} images embedded at grid {grid[0]}x{grid[1]} and kept, {rate:.0f} img/s")
        return table
