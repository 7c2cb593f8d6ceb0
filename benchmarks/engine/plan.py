"""What a command would do: every cell with its state, missing data and cost, before anything starts."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cost.macs import estimate
from benchmarks.cost.rates import FILE, read_rates
from benchmarks.engine.suite import Cell, Suite
from benchmarks.store import Entry, Store, key_of
from tasks import build_task
from tasks.contract import Recipe, Task, View
from tasks.data.checks.of_task import findings_of


@dataclass
class Planned:
    """A cell and what is known of it. `state`: done, to do, or blocked (`missing` says by what)."""

    cell: Cell
    state: str
    missing: list[str]
    rows_done: list[str]
    macs: int | None = None
    hours: float | None = None
    rate: str | None = None  # where the speed is from, see `estimate`

    def as_json(self) -> dict[str, Any]:
        cell = self.cell
        return {
            "suite": cell.suite, "task": cell.task, "options": dict(cell.options), "backbone": cell.backbone,
            "train_grid": cell.train, "eval_grids": [grid_text(v) for v in cell.views], "seed": cell.seed,
            "splits": list(cell.splits), "state": self.state, "missing": self.missing, "rows_done": self.rows_done,
            "macs": self.macs, "hours": self.hours, "rate": self.rate,
        }  # fmt: skip


def cell_task(cell: Cell, data_root: str | Path) -> Task:
    """The cell's task with the cell's recipe.

    Raises: TaskError for a recipe value of the wrong kind.
    """
    task = build_task(cell.task, data_root, dict(cell.options), cell.seed)
    task.recipe = changed(task.recipe, cell.recipe)
    return task


def changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """A recipe with some values replaced. A value that is set by hand is no longer searched.

    A warm-up that no longer fits a new number of steps keeps its share of them.

    Raises: TaskError for a name that no recipe has, or a value of another kind.
    """
    changes = dict(changes)
    new = recipe.replaced(changes)
    if "steps" in changes and "warmup" not in changes and 2 * recipe.warmup > new.steps > 0:
        changes["warmup"] = recipe.warmup * new.steps // max(recipe.steps, new.steps, 2 * recipe.warmup)
    if "candidates" not in changes:
        tried = {name for candidate in recipe.candidates for name in candidate}
        if tried & set(changes):
            left = [{k: v for k, v in c.items() if k not in changes} for c in recipe.candidates]
            changes["candidates"] = tuple(c for i, c in enumerate(left) if c and c not in left[:i])
    return recipe.replaced(changes)


def grid_text(view: View) -> str:
    """`8x8`, with the resize method and options where they are not the usual."""
    text = f"{view.grid[0]}x{view.grid[1]}"
    more = [view.resize] * (view.resize != "pi") + [f"{k}={v}" for k, v in view.options]
    return f"{text} ({', '.join(more)})" if more else text


def cell_key(cell: Cell, task: Task) -> str:
    """Hash of what the cell asks for: enough to find its rows before weights and data are opened."""
    return key_of({
        "task": cell.task, "protocol": task.card.protocol, "options": task.options.stage("train"),
        "recipe": dataclasses.asdict(task.recipe), "backbone": cell.backbone, "more": dict(cell.backbone_options),
        "train": cell.train, "seed": cell.seed,
    })  # fmt: skip


def view_key(task: Task, view: View, split: str) -> str:
    """Hash of how a trained cell is looked at."""
    options = {**task.options.stage("eval"), **dict(view.options)}
    return key_of({"grid": view.grid, "resize": view.resize, "options": options, "split": split})


def found_rows(cell: Cell, task: Task, store: Store) -> dict[tuple[str, str], Entry]:
    """Successful rows of a cell by (split, view key), the newest of each; not those that skipped pictures."""
    entries = store.entries(cell_key(cell, task))
    return {(e.split, e.view_key): e for e in entries if e.ok and not e.skipped}


def plan(
    suite: Suite, store: Store, data_root: str | Path, device: str = "cpu", costs: bool = True, rates: Path = FILE
) -> list[Planned]:
    """Every cell of a suite. Opens no weights. `rates`: speeds that `bench` has measured.

    Example: `[p.state for p in plan(suite, Store("results/runs/mini"), "data")]`
    """
    planned: list[Planned] = []
    missing: dict[str, list[str]] = {}
    known_rates, speed = read_rates(rates), measured_speed(store)
    for cell in suite.cells:
        task = cell_task(cell, data_root)
        known = found_rows(cell, task, store)
        wanted = [(split, view_key(task, view, split)) for split in cell.splits for view in cell.views]
        done = [known[w].row_key for w in wanted if w in known]
        where = key_of({"task": cell.task, "options": dict(cell.options), "splits": cell.splits})
        if where not in missing:
            missing[where] = missing_of(task, cell.splits)
        state = "done" if len(done) == len(wanted) else "blocked" if missing[where] else "to do"
        entry = Planned(cell, state, missing[where], done)
        if costs and state != "done":
            images = sum(task.card.splits.get(s) or 0 for s in cell.splits)
            recipe = task.recipe
            steps = sum({**dataclasses.asdict(recipe), **c}["steps"] for c in recipe.candidates or ({},))
            cost = estimate(cell, steps, recipe.batch, images, task.card.image_size, device, speed, known_rates)
            entry.macs, entry.hours, entry.rate = cost["macs"], cost["hours"], cost["rate"]
        planned.append(entry)
    return planned


def measured_speed(store: Store) -> float | None:
    """Multiply-adds a second of the folder's own evaluations, their median; None where there are none."""
    speeds = [e.speed for e in store.entries() if e.speed]
    return statistics.median(speeds) if speeds else None


def missing_of(task: Task, splits: tuple[str, ...], skip_broken: bool = False) -> list[str]:
    """What of the data for these splits is missing or would fail a run, each with what helps.

    Pictures and labels are looked at once and remembered by their content. `skip_broken`: pictures that cannot be
    decoded keep no run from starting.
    """
    found = findings_of(task, splits)
    return list(dict.fromkeys(map(str, found.problems if skip_broken else found.errors)))
