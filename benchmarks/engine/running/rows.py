"""Rows out of what a sweep gives, and out of what fails."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from backbones.cost import macs
from backbones.grids import Grid, parse_schedule, patch_size
from benchmarks.cost.macs import of_training
from benchmarks.engine.identity import Identity, cell_key, samples_key
from benchmarks.engine.suite import Cell, changed
from benchmarks.engine.sweep import SweepResult
from benchmarks.engine.training.trainer import Trained
from benchmarks.store import Row, environment
from benchmarks.store.failures import one_line, trace_of
from tasks.contract import Task, View


@dataclass(frozen=True)
class Made:
    """How a result was made: where a cell was trained and evaluated, and what of each sample is kept of it.

    Args:
        precision, device: as rows name them.
        keep: writes the per-sample values of a row key and gives their place; None: they are not kept here.
    """

    precision: str
    device: str
    keep: Callable[[str, Mapping[str, Any]], str] | None


def asked_of(cell: Cell, task: Task | None, started: datetime | None = None) -> dict[str, Any]:
    """What a row of a cell says of what was asked for. `task` None: it could not be built."""
    grid: Any = cell.train
    if grid is not None and parse_schedule(grid).kind == "fixed":
        grid = side(parse_schedule(grid).grids[0])
    shared: dict[str, Any] = {
        "suite": cell.suite, "task": cell.task, "backbone": cell.backbone, "train_grid": grid, "seed": cell.seed,
        "options": dict(cell.options), "backbone_options": dict(cell.backbone_options), "label": cell.label,
        "flexible": cell.flexible, "started": (started or datetime.now(UTC)).isoformat(timespec="seconds"),
    }  # fmt: skip
    if task is not None:
        metric = task.card.metric
        shared |= {
            "protocol": task.card.protocol, "metric": metric.name, "higher_is_better": metric.higher_is_better,
            "image_size": task.card.image_size, "recipe": dataclasses.asdict(task.recipe),
            "steps": task.recipe.steps, "cell_key": cell_key(cell, task),
            "measure": dataclasses.asdict(metric), "cluster": task.card.cluster or None,
        }  # fmt: skip
    return shared


def of_view(split: str, view: View, identity: Identity) -> dict[str, Any]:
    """What a row of a view says of it, whether it went well or not."""
    return {
        "split": split, "eval_grid": side(view.grid), "resize": view.resize, "view_key": identity.views[view],
        "view_options": dict(view.options), "data_identity": {**identity.train_data, **identity.data[split, view]},
    }  # fmt: skip


def failed_row(cell: Cell, task: Task | None, error: BaseException, more: Mapping[str, Any]) -> Row:
    """The row of a failure, whatever failed: of a task that cannot say what it is, what the cell says."""
    try:
        shared = asked_of(cell, task)
    except Exception:
        shared = asked_of(cell, None)
    return Row(**shared, **more, status="failed", error=one_line(error), traceback=trace_of(error), env=environment())


def rows_of_sweep(
    result: SweepResult,
    trained: Trained,
    task: Task,
    asked: Mapping[str, Any],
    split: str,
    identity: Identity,
    made: Made,
) -> list[Row]:
    """A row for each view of a sweep.

    Args: asked: of `asked_of`, with the keys of training.
    """
    rows, encoder = [], getattr(trained.model, "backbone", None)
    if asked["flexible"] is None:
        asked = {**asked, "flexible": getattr(encoder, "flexible", None)}
    hashes = {view: samples_key(samples) for view, _, samples in result.rows}
    same_as = {view: [v for v in group if v != view] for group in alike(result) for view in group}
    skipped = result.skipped | ({"train": s} if (s := trained.notes.get("skipped")) else {})
    spent = macs_of_training(encoder, task, asked["train_grid"], trained.notes)
    training = trained.notes | ({"macs": spent} if spent else {})
    for view, metrics, samples in result.rows:
        key = identity.rows[split, view]
        passes, seconds = task.passes(view), result.seconds[view]
        each = [macs_or_none(encoder, grid, task.card.image_size) for grid in passes]
        counted = None if None in each else sum(filter(None, each))
        cost = {
            "macs": counted, "images_per_second": round(result.images / seconds, 2) if seconds else None,
            "macs_per_second": int(counted * result.images / seconds) if counted and seconds else None,
        } | ({"grids": [side(grid) for grid in passes]} if len(passes) > 1 else {})  # fmt: skip
        options = trained.choice | dict(view.options)
        rows.append(Row(
            **asked, **of_view(split, view, identity) | {"view_options": options}, row_key=key,
            patch=side(patch_size(task.card.image_size, view.grid)),
            eval_options=task.at(View(view.grid, options=options)).options.stage("eval"),
            metrics={name: value if math.isfinite(value) else None for name, value in metrics.items()},
            images=result.images, training=training, precision=made.precision, device=made.device, cost=cost,
            eval_weights="bf16" if result.bfloat16 else None,
            notes=[*trained.notes.get("notes", []), *result.notes], env=environment(), skipped=skipped,
            samples=made.keep(key, samples) if made.keep and samples is not None else None,
            samples_hash=hashes[view], identical_to=[identity.rows[split, other] for other in same_as.get(view, ())],
        ))  # fmt: skip
    return rows


def macs_or_none(encoder: Any, grid: Grid, side: int) -> int | None:
    """Multiply-adds of a backbone at a grid of the task's images; None of a model without one, or that cannot tell."""
    encoder = getattr(encoder, "module", encoder)  # a locked one is kept off the module tree
    if encoder is None:
        return None
    try:
        return macs(encoder, grid, side)
    except Exception:  # a plug-in's forward pass over zeros; its cost stays unknown and its rows stand
        return None


def macs_of_training(encoder: Any, task: Task, train: int | str | None, notes: Mapping[str, Any]) -> int | None:
    """Multiply-adds of the training that made a model, by the shares of its schedule; None where nothing was trained or
    the cost of a grid is not known. Of candidates it is that of the one that won."""
    steps = notes.get("steps")
    if not steps or train is None:
        return None
    task = copy.copy(task)  # with the recipe that won; the caller's keeps the cell's
    candidates = task.recipe.candidates
    task.recipe = changed(task.recipe, candidates[notes.get("won", 0)] if candidates else {})
    shares = parse_schedule(str(train)).shares()
    needed = {g: n for g in shares if (n := macs_or_none(encoder, g, task.card.image_size)) is not None}
    if len(needed) < len(shares):
        return None
    return round(sum(of_training(shares, needed, steps * task.recipe.batch, task.training_work()).values()))


def alike(result: SweepResult) -> list[list[View]]:
    """Views whose per-sample values are the same to the byte; what they differ in changed nothing."""
    groups: dict[str | None, list[View]] = {}
    for view, _, samples in result.rows:
        groups.setdefault(samples_key(samples), []).append(view)
    return [views for key, views in groups.items() if key is not None and len(views) > 1]


def shown_values(task: Task, split: str, rows: Sequence[Row]) -> str:
    """`test top1 in % at grid 4: 20.4  8: 31.0`."""
    metric = task.card.metric
    values = "  ".join(f"{r.eval_grid}: {metric.show(r.metrics.get(metric.name), unit=False)}" for r in rows)
    return f"{split} {metric.label} at grid {values}"


def side(grid: Grid) -> int | str:
    """8 for (8, 8), "8x12" for (8, 12)."""
    return grid[0] if grid[0] == grid[1] else f"{grid[0]}x{grid[1]}"
