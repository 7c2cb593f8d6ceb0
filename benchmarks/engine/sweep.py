"""Evaluation of one model under many views in one pass over the data."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.engine.batches.evaluation import MOST_JOINED, Budget, eval_batches
from benchmarks.engine.batches.forking import started
from benchmarks.engine.batches.joining import Waiting, apart, joined
from benchmarks.engine.batches.prefetch import ahead
from benchmarks.engine.batches.skipping import Skipped
from benchmarks.engine.bfloat16 import bfloat16_weights
from benchmarks.engine.finite import Watch
from benchmarks.engine.memory import free_memory, is_out_of_memory
from benchmarks.engine.running.processes import failing_together
from tasks.contract import Batch, Task, View
from tasks.contract.meters import gathered


@dataclass
class SweepResult:
    """What a sweep leaves. With several processes all of it is of all of them; `seconds` are those of the slowest.

    Args:
        rows: (view, metrics, per-sample values or None) of each view whose predictions were finite.
        failed: the others, and why.
        seconds: of prediction of each view.
        images: of the split's parts together, each counted once.
        notes: for the row.
        skipped: by split: how many pictures, and the first of them.
        bfloat16: whether the backbone's blocks held bfloat16 weights.
    """

    rows: list[tuple[View, dict[str, float], dict[str, Any] | None]]
    failed: dict[View, str] = field(default_factory=dict)
    seconds: dict[View, float] = field(default_factory=dict)
    images: int = 0
    notes: list[str] = field(default_factory=list)
    skipped: dict[str, Any] = field(default_factory=dict)
    bfloat16: bool = False


class Lane:
    """Views that agree in the task's options: they share its meter, and what it prepares."""

    def __init__(self, task: Task, views: Sequence[View], split: str):
        self.task, self.views, self.split = task, list(views), split
        self.meter = task.at(views[0]).meter(split)
        self.waiting = {view: Waiting() for view in views}
        self._prepared: dict[tuple[Any, ...] | None, Any] = {}

    def prepared(self, model: nn.Module, view: View) -> Any:
        """What `Task.prepare` gives under the view; once, unless it runs the backbone, which each view binds anew."""
        key = tuple(view.bindings.items())
        if key not in self._prepared:
            if None in self._prepared:
                return self._prepared[None]
            with self.task.viewing(model, view) as own, _calls(model) as calls:
                found = own.prepare(model, self.split)
            self._prepared[key if calls else None] = found
            return found
        return self._prepared[key]

    def narrow(self, part: str, ids: Sequence[int]) -> None:
        """Only these samples of a part will come."""
        if hasattr(self.meter, "narrow"):
            self.meter.narrow(part, ids)

    def drop(self, view: View) -> None:
        """Leave a view out from now on."""
        self.views.remove(view)
        self.waiting.pop(view)
        if hasattr(self.meter, "drop"):
            self.meter.drop(view)


def lanes_of(task: Task, views: Sequence[View], split: str) -> list[list[Lane]]:
    """Lanes by passes over the data: views whose options change the pictures need a pass of their own."""
    passes: dict[Any, dict[Any, list[View]]] = {}
    for view in views:
        passes.setdefault(task.data_options(view), {}).setdefault(view.options, []).append(view)
    return [[Lane(task, own, split) for own in lanes.values()] for lanes in passes.values()]


def tokens_of(task: Task, view: View) -> int:
    """Grid cells of a picture in the finest of the passes that a view makes."""
    return max(height * width for height, width in (view.grid, *task.passes(view)))


def predict_in_chunks(
    task: Task, model: nn.Module, batch: Batch, view: View, prepared: Any, budget: Budget, notes: list[str]
) -> dict[str, Tensor]:
    """Records of a whole batch under a view, a chunk at a time. Out of memory halves the budget and repeats the batch.

    Raises: the device's own error where a single image does not fit.
    """
    cells = tokens_of(task, view)
    with task.viewing(model, view) as own:
        while True:
            size = budget.images(cells, len(batch))
            encoder = getattr(model, "backbone", None)
            if encoder is not None and budget.tokens is not None and hasattr(encoder, "token_budget"):
                encoder.token_budget = budget.tokens
            try:
                starts = range(0, len(batch), size)
                found = [own.predict(model, batch[i : i + size], view.grid, prepared) for i in starts]
            except RuntimeError as error:
                if not is_out_of_memory(error) or size <= 1:
                    raise
            else:
                return found[0] if len(found) == 1 else {k: torch.cat([r[k] for r in found]) for k in found[0]}
            budget.halve(cells, size)
            grid = f"{view.grid[0]}x{view.grid[1]}"
            notes.append(f"out of memory at grid {grid}: {size} images a pass halved to {size // 2}")
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
    most: int = MOST_JOINED,
    workers: int = 0,
    autocast: Callable[[], Any] | None = None,
    rank: int = 0,
    world: int = 1,
    skip: bool = False,
    limit: int | None = None,
    bfloat16: bool = False,
    progress: Callable[[int, int, float], None] | None = None,
) -> SweepResult:
    """Evaluate every batch under every view before the next batch is read.

    A view whose predictions are not finite is left out and told in `failed`; the others stand.

    Args:
        views: at least one, all different; a row comes back for each. Those whose options change the pictures
            themselves (`option(..., data=True)`) take a pass of their own.
        split: what is reported on; the task says which parts of the data it passes over for it.
        batch: images decoded and moved at once.
        token_budget: tokens (images x grid cells) of a forward pass: batches are cut to it, and joined up to it; None:
            each batch is one pass.
        most: pictures that batches are joined to.
        autocast: context of reduced precision, such as `accelerator.autocast`.
        skip: pass over pictures that cannot be read; they are counted in the result.
        limit: of a smoke test, samples of each part; None: all of them.
        bfloat16: weights and residual stream of the backbone's blocks in bfloat16; `result.bfloat16`: it could be done.
        progress: called with images done, images in all, images a second.

    Raises: TaskError for an empty split, and for a picture that cannot be read unless they are skipped.

    Example: `sweep(task, model, task.views([8, 15]), "test").rows`
    """
    assert views and len(set(views)) == len(views), "views must be given, each once"
    model.eval()
    result, budget = SweepResult([], seconds=dict.fromkeys(views, 0.0)), Budget(token_budget, most)
    started, passes = time.perf_counter(), lanes_of(task, views, split)
    pin = torch.device(device).type == "cuda"
    for lanes in passes:
        reader, done = task.reading(lanes[0].views[0]), 0
        parts = [(p, eval_batches(reader, p, batch, workers, rank, world, skip, pin, limit)) for p in task.parts(split)]
        for part, loader in parts if limit is not None else ():
            for lane in lanes:
                lane.narrow(part, task.smoke(part, len(loader.dataset), limit))  # type: ignore[arg-type]
        skipped = {part: Skipped(part) for part, _ in parts}
        total = sum(len(chunk) for _, loader in parts for chunk in cast(Iterable[list[int]], loader.batch_sampler))
        with (
            failing_together(), torch.no_grad(), (autocast or contextlib.nullcontext)(),
            bfloat16_weights(model, bfloat16) as kept, Watch(model) as watch,
        ):  # fmt: skip
            result.bfloat16, result.notes = bfloat16 and not kept, [*result.notes, *kept]
            before: str | None = None
            for part, found in ahead(_stream(parts, skipped), device):
                if before is not None and part != before:
                    for lane in lanes:
                        _evaluate(lane, model, None, before, budget, watch, result)
                moved, before = normalised_once(model, found), part
                for lane in lanes:
                    _evaluate(lane, model, moved, part, budget, watch, result)
                done += len(found)
                if progress:
                    progress(done, total, done / (time.perf_counter() - started))
            for lane in lanes if before is not None else ():
                _evaluate(lane, model, None, before, budget, watch, result)
        result.images = max(result.images, sum(gathered(done)))
        for part, loader in parts:
            skipped[part].merge()
            if skipped[part].errors:
                result.skipped[part] = skipped[part].as_row()
                result.notes.append(skipped[part].note(len(loader.dataset)))  # type: ignore[arg-type]
    _merge(result, [lane for lanes in passes for lane in lanes])
    result.rows.sort(key=lambda row: views.index(row[0]))
    return result


def _evaluate(
    lane: Lane, model: nn.Module, batch: Batch | None, part: str, budget: Budget, watch: Watch, result: SweepResult
) -> None:
    """One batch under every view of a lane, with those that waited for it; None: whatever still waits."""
    for view in list(lane.views):
        waiting = lane.waiting[view]
        room = budget.room(tokens_of(lane.task, view))
        groups = [waiting.rest()] if batch is None else waiting.add(batch, room)
        for group in groups:
            if not group or view not in lane.views:
                continue
            prepared, begin = lane.prepared(model, view), time.perf_counter()
            records = predict_in_chunks(lane.task, model, joined(group), view, prepared, budget, result.notes)
            problem = watch.problem(records)
            if problem is None:
                for own, one in apart(records, group):
                    lane.meter.update(own, one, view, part)
            else:
                lane.drop(view)
                result.failed[view] = f"predictions at {view} are not finite: {problem}, images of {part}"
            result.seconds[view] += time.perf_counter() - begin


def _merge(result: SweepResult, lanes: Sequence[Lane]) -> None:
    """Bring the shares of all processes together, which worked side by side, and make the rows."""
    shares = gathered((result.seconds, result.notes, result.failed))
    result.seconds = {view: max(seconds[view] for seconds, _, _ in shares) for view in result.seconds}
    result.notes = list(dict.fromkeys(note for _, notes, _ in shares for note in notes))
    result.failed = {view: why for _, _, failed in reversed(shares) for view, why in failed.items()}
    for lane in lanes:
        for view in [v for v in lane.views if v in result.failed]:
            lane.drop(view)
        lane.meter.merge()
        if lane.views:
            rows = [row for row in lane.meter.rows() if row[0] not in result.failed]
            assert {view for view, _, _ in rows} == set(lane.views), "a meter must give one row for each view"
            result.rows += rows


def _stream(parts: Sequence[tuple[str, DataLoader]], skipped: dict[str, Skipped]) -> Iterator[tuple[str, Batch]]:
    for part, loader in parts:
        for found in started(loader):
            batch, unread = (found, []) if isinstance(found, Batch) else found
            skipped[part].add(unread)
            if batch is not None:
                yield part, batch


@contextlib.contextmanager
def _calls(model: nn.Module) -> Iterator[list[Any]]:
    """Fills a list when the backbone of a model is run."""
    calls: list[Any] = []
    encoder = getattr(model, "backbone", None)
    hook = encoder.register_forward_pre_hook(lambda *_: calls.append(None)) if isinstance(encoder, nn.Module) else None
    try:
        yield calls
    finally:
        if hook is not None:
            hook.remove()


def normalised_once(model: nn.Module, batch: Batch) -> Batch:
    """Bytes become the backbone's float input once, not once per view (float input passes through a backbone)."""
    normalise = getattr(getattr(model, "backbone", None), "normalise", None)
    if normalise is None or not isinstance(batch.images, Tensor) or batch.images.is_floating_point():
        return batch
    return Batch(batch.ids, normalise(batch.images), batch.targets, batch.features)
