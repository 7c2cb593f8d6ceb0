"""Evaluation of one model under many views in one pass over the data."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.engine.batches.prefetch import ahead
from benchmarks.engine.batches.skipping import CollateRead, Skipped, Skipping
from benchmarks.engine.memory import free_memory, is_out_of_memory
from benchmarks.engine.processes import failing_together
from tasks.contract import Batch, Task, TaskError, View
from tasks.contract.meters import gathered


@dataclass
class SweepResult:
    """`rows`: (view, metrics, per-sample values or None). `seconds` of prediction of each view; `notes` for the row.

    With several processes all of it is of all of them; `seconds` are those of the slowest.
    """

    rows: list[tuple[View, dict[str, float], dict[str, Any] | None]]
    seconds: dict[View, float] = field(default_factory=dict)
    images: int = 0
    notes: list[str] = field(default_factory=list)
    skipped: dict[str, Any] = field(default_factory=dict)  # by split: how many pictures, and the first of them


class Numbered(Dataset):
    """`numbered[i] -> (i, image, target)`, what `Task.collate` takes."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[int, Any, Any]:
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
) -> DataLoader:
    """Batches of a split in order; each process takes every `world`-th batch, none is padded or repeated.

    With `skip` they come as `CollateRead` gives them. `pin`: in memory that a GPU reads by itself.
    """
    dataset: Dataset = Numbered(task.dataset(split))
    if not len(dataset):
        raise TaskError(f"split {split!r} of {task.card.name} is empty")
    batches = [list(range(i, min(i + batch, len(dataset)))) for i in range(0, len(dataset), batch)][rank::world]
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
        self.tokens = max(1, images // 2) * view.grid[0] * view.grid[1]


def predict_in_chunks(
    task: Task, model: nn.Module, batch: Batch, view: View, prepared: Any, budget: Budget, notes: list[str]
) -> dict[str, Tensor]:
    """Records of a whole batch, a chunk at a time. Out of memory halves the budget and repeats batch and view.

    Raises: the device's own error where a single image does not fit.
    """
    while True:
        size = budget.images(view, len(batch))
        encoder = getattr(model, "backbone", None)
        if encoder is not None and budget.tokens is not None and hasattr(encoder, "token_budget"):
            encoder.token_budget = budget.tokens
        try:
            found = [task.predict(model, batch[i : i + size], view, prepared) for i in range(0, len(batch), size)]
        except RuntimeError as error:
            if not is_out_of_memory(error) or size <= 1:
                raise
        else:
            return found[0] if len(found) == 1 else {k: torch.cat([r[k] for r in found]) for k in found[0]}
        budget.halve(view, size)
        notes.append(f"out of memory at grid {view.grid[0]}x{view.grid[1]}: {size} images a pass halved to {size // 2}")
        print(f"  {notes[-1]}", flush=True)
        free_memory()


def sweep(
    task: Task,
    model: nn.Module,
    views: Sequence[View],
    split: str,
    *,
    device: torch.device | str = "cpu",
    batch: int = 64,
    token_budget: int | None = None,
    workers: int = 0,
    autocast: Callable[[], Any] | None = None,
    rank: int = 0,
    world: int = 1,
    skip: bool = False,
    progress: Callable[[int, int, float], None] | None = None,
) -> SweepResult:
    """Look at every batch under every view before the next batch is read.

    Args:
        views: at least one, all different; a row comes back for each.
        split: what is reported on; the task says which parts of the data it passes over for it.
        batch: images decoded and moved at once.
        token_budget: tokens (images x grid cells) of a forward pass.
        autocast: context of reduced precision, such as `accelerator.autocast`.
        skip: pass over pictures that cannot be read; they are counted in the result.
        progress: called with images done, images in all, images a second.

    Raises: TaskError for an empty split, and for a picture that cannot be read unless they are skipped.

    Example: `sweep(task, model, task.views([8, 15]), "test").rows`
    """
    assert views and len(set(views)) == len(views), "views must be given, each once"
    model.eval()
    result, budget = SweepResult([], dict.fromkeys(views, 0.0)), Budget(token_budget)
    meter, started = task.meter(split), time.perf_counter()
    pin = torch.device(device).type == "cuda"
    parts = [(part, eval_batches(task, part, batch, workers, rank, world, skip, pin)) for part in task.parts(split)]
    skipped = {part: Skipped(part) for part, _ in parts}
    total = sum(len(chunk) for _, loader in parts for chunk in loader.batch_sampler)
    with failing_together(), torch.no_grad(), (autocast or _plain)():
        prepared = task.prepare(model, split)
        for part, found in ahead(_stream(parts, skipped), device):
            moved = normalised_once(model, found)
            for view in views:
                begin = time.perf_counter()
                records = predict_in_chunks(task, model, moved, view, prepared, budget, result.notes)
                meter.update(records, moved, view, part)
                result.seconds[view] += time.perf_counter() - begin
            result.images += len(found)
            if progress:
                progress(result.images, total, result.images / (time.perf_counter() - started))
    _merge(result)
    for part, loader in parts:
        skipped[part].merge()
        if skipped[part].errors:
            result.skipped[part] = skipped[part].as_row()
            result.notes.append(skipped[part].note(len(loader.dataset)))
    meter.merge()
    result.rows = meter.rows()
    assert {view for view, _, _ in result.rows} == set(views), "a meter must give one row for each view"
    return result


def _merge(result: SweepResult) -> None:
    """Bring the counts of all processes together; they worked side by side."""
    shares = gathered((result.images, result.seconds, result.notes))
    result.images = sum(images for images, _, _ in shares)
    result.seconds = {view: max(seconds[view] for _, seconds, _ in shares) for view in result.seconds}
    result.notes = list(dict.fromkeys(note for _, _, notes in shares for note in notes))


def _stream(parts: Sequence[tuple[str, DataLoader]], skipped: dict[str, Skipped]) -> Iterator[tuple[str, Batch]]:
    for part, loader in parts:
        for found in loader:
            batch, unread = (found, []) if isinstance(found, Batch) else found
            skipped[part].add(unread)
            if batch is not None:
                yield part, batch


def _plain() -> Any:
    import contextlib

    return contextlib.nullcontext()


def normalised_once(model: nn.Module, batch: Batch) -> Batch:
    """Bytes become the backbone's float input once, not once per view (float input passes through a backbone)."""
    normalise = getattr(getattr(model, "backbone", None), "normalise", None)
    if normalise is None or not isinstance(batch.images, Tensor) or batch.images.is_floating_point():
        return batch
    return Batch(batch.ids, normalise(batch.images), batch.targets, batch.features)
