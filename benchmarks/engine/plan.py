"""What a command would do: every cell with its state, missing data and cost, before anything starts."""

from __future__ import annotations

import dataclasses
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backbones.contract import Download
from backbones.registry import availability, download_of
from backbones.weights.download import obstacle, offline
from benchmarks.cost.macs import estimate
from benchmarks.cost.rates import FILE, assumed_speed, read_rates
from benchmarks.engine.identity import Identities, Identity, cell_key, precision_name
from benchmarks.engine.running.options import evaluation_weights
from benchmarks.engine.suite import Cell, Suite, alone_only, cell_task, recipe_of
from benchmarks.store import Store, key_of
from benchmarks.store.failures import one_line
from tasks import build_task
from tasks.contract import Task
from tasks.data.checks.of_task import findings_of
from tasks.data.errors import as_one_line

PRECISIONS = ("no", "bf16")


@dataclass
class Planned:
    """A cell and what is known of it.

    Args:
        state: done, to do, or blocked. missing: by what it is blocked, a line each.
        rows_done: keys of its rows. notes: what follows from its recipe, such as candidates that compete.
        downloads: what a run would fetch for it first.
        macs, hours: its cost. rate: where the speed is from, see `estimate`.
    """

    cell: Cell
    state: str
    missing: list[str]
    rows_done: list[str]
    notes: list[str] = field(default_factory=list)
    macs: int | None = None
    hours: float | None = None
    rate: str | None = None
    downloads: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        cell = self.cell
        return {
            "suite": cell.suite, "task": cell.task, "options": dict(cell.options), "backbone": cell.backbone,
            "train_grid": cell.train, "eval_grids": [str(v) for v in cell.views], "seed": cell.seed,
            "splits": list(cell.splits), "state": self.state, "missing": self.missing, "rows_done": self.rows_done,
            "notes": self.notes, "downloads": self.downloads, "macs": self.macs, "hours": self.hours, "rate": self.rate,
        }  # fmt: skip


class Obstacles:
    """What blocks cells: their recipe, data or weights that are not there; asked once for cells that share it.

    Args:
        processes: those of a group that trains each cell together.
        connect: ask servers whether they have what is to be downloaded. A plan does not: it tells what will be.

    Example: `Obstacles().of(cell, task)` is `[]` where the cell can be run
    """

    def __init__(self, skip_broken: bool = False, processes: int = 1, connect: bool = False) -> None:
        self._known: dict[str, list[str]] = {}
        self._downloads: dict[str, Download | None] = {}
        self._skip_broken, self._together, self._connect = skip_broken, processes > 1, connect

    def of(self, cell: Cell, task: Task) -> list[str]:
        """A line for each obstacle, with where to get what is missing."""
        if cell.problem:
            return [cell.problem]
        if self._together and (why := alone_only(task)):
            return [f"{cell.task}: {why}"]
        data = key_of({"task": cell.task, "options": dict(cell.options), "splits": cell.splits})
        if data not in self._known:
            self._known[data] = missing_of(task, cell.splits, self._skip_broken)
        weights = _weights(cell)
        if weights not in self._known:
            reason, wanted = availability(cell.backbone, **cell.backbone_options), self.download(cell)
            reason = reason or (obstacle(wanted, self._connect) if wanted else None)
            self._known[weights] = [f"backbone {cell.backbone}: {reason}"] if reason else []
        start = task.start(cell.backbone)
        lacking = map(as_one_line, start.lacking()) if start else ()
        return [*self._known[data], *lacking, *self._known[weights]]

    def download(self, cell: Cell) -> Download | None:
        """What of the cell's backbone a run would fetch first."""
        weights = _weights(cell)
        if weights not in self._downloads:
            self._downloads[weights] = download_of(cell.backbone, **cell.backbone_options)
        return self._downloads[weights]


def _weights(cell: Cell) -> str:
    return key_of({"backbone": cell.backbone, "options": dict(cell.backbone_options)})


def rows_of(identity: Identity, store: Store, skipped: bool = False) -> dict[Any, str]:
    """`{(split, view): row key}` of the rows that a cell has; those that passed over pictures only with `skipped`."""
    done = store.done()
    return {pair: key for pair, key in identity.rows.items() if key in done and (skipped or not done[key].skipped)}


def plan(
    suite: Suite,
    store: Store,
    data_root: str | Path,
    device: str = "cpu",
    costs: bool = True,
    rates: Path = FILE,
    precision: str = "",
    skip_broken: bool = False,
    limit: int | None = None,
    eval_weights: str = "",
) -> list[Planned]:
    """Every cell of a suite. Looks at the data, once; weights are opened for cells that have rows, to see whether they
    are of these weights and data.

    Args:
        device, precision, skip_broken, limit, eval_weights: of the run that is planned; precision empty: bf16 on a GPU,
            else float32.
        rates: speeds that `bench` has measured.

    Nothing is fetched and no server is asked: what a run would download is told.

    Raises: ValueError for a device or precision that there is not.

    Example: `[p.state for p in plan(suite, Store("results/runs/mini"), "data")]`
    """
    if precision not in ("", *PRECISIONS):
        raise ValueError(f"no precision {precision!r}; there are: {', '.join(PRECISIONS)}")
    known_rates, speed = read_rates(rates), measured_speed(store)
    assumed_speed(device, known_rates)
    obstacles, told = Obstacles(skip_broken), dict[str, list[str]]()
    precision = precision or ("no" if device == "cpu" else "bf16")
    identities = Identities(precision_name(precision), limit, evaluation_weights(device, precision, eval_weights))

    def known(cell: Cell) -> Planned:
        task = cell_task(cell, data_root)
        asked = key_of({"task": cell.task, "options": dict(cell.options), "recipe": dict(cell.recipe)})
        if asked not in told:  # the same for all seeds, backbones and grids
            told[asked] = recipe_of(build_task(cell.task, data_root, dict(cell.options)).recipe, cell.recipe)[1]
        notes = [*told[asked], *([why] if (why := alone_only(task)) else [])]
        missing, done, wanted = obstacles.of(cell, task), [], obstacles.download(cell)
        # of weights that are not here no hash is known, so no row can be told to be of them
        key = cell_key(cell, task)
        if not missing and not wanted and any(entry.ok for entry in store.entries(key)):
            done = list(rows_of(identities.of(cell, task, key), store, skip_broken).values())
        whole = len(done) == len(cell.splits) * len(cell.views)
        state = "blocked" if missing else "done" if whole else "to do"
        entry = Planned(cell, state, missing, done, notes, downloads=[str(wanted)] if wanted else [])
        if costs and state != "done":
            images = sum(min(task.card.splits.get(s) or 0, limit or sys.maxsize) for s in cell.splits)
            recipe = task.recipe
            steps = sum({**dataclasses.asdict(recipe), **c}["steps"] for c in recipe.candidates or ({},))
            side, passes = task.card.image_size, [g for v in cell.views for g in task.passes(v)]
            try:
                cost = estimate(
                    cell, steps, recipe.batch, images, side, device, speed, known_rates, passes, task.training_work()
                )
            except ValueError as error:  # of a backbone that there is not, nobody knows what it costs
                entry.missing = missing or [f"backbone {cell.backbone}: {as_one_line(error)}"]
                entry.state = "blocked"
            else:
                entry.macs, entry.hours, entry.rate = cost["macs"], cost["hours"], cost["rate"]
        return entry

    planned: list[Planned] = []
    with offline():
        for cell in suite.cells:
            try:
                planned.append(known(cell))
            except Exception as error:  # whatever a plug-in raises, the other cells can be planned
                planned.append(Planned(cell, "blocked", [f"{cell.task}: {one_line(error)}"], []))
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
    return list(dict.fromkeys(map(as_one_line, found.problems if skip_broken else found.errors)))
