"""Carries a plan out: skip what is done, run a cell, write its rows or its failure, go on."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.engine.batches.prefetch import decoding_processes, processes_here
from benchmarks.engine.finite import Diverged
from benchmarks.engine.plan import cell_key, cell_task, missing_of, view_key
from benchmarks.engine.running.lines import Lines, write_line
from benchmarks.engine.running.options import RunOptions, build_accelerator
from benchmarks.engine.running.processes import failing_together, of_main
from benchmarks.engine.running.rows import Made, failed_row, identity_of, rows_of, shown_values, side
from benchmarks.engine.running.summary import Summary
from benchmarks.engine.suite import Cell, Suite
from benchmarks.engine.sweep import SweepResult
from benchmarks.engine.training.trainer import Trained, Trainer
from benchmarks.store import Row, Store, key_of
from benchmarks.store.failures import one_line, text_of
from benchmarks.store.gallery import keep_pictures
from benchmarks.store.trackers import Trackers
from tasks.contract import Task, View

__all__ = ["RunOptions", "Runner", "Summary"]
DEFAULTS = RunOptions()
PICTURED = 4  # grids side by side in a picture


@dataclass(frozen=True)
class Keys:
    """Of a cell: what its weights are known by, and the row of each (split, view)."""

    train: str
    weights: str
    data: str
    rows: Mapping[tuple[str, View], str]


class Runner:
    """Runs the cells of a suite into a store.

    Args:
        lines: takes the lines of the run, or a function that does; None: they are printed.

    Example: `Runner(load_suite("demo"), Store("results/runs/demo"), "data").run().status`
    """

    def __init__(
        self,
        suite: Suite,
        store: Store,
        data_root: str | Path,
        options: RunOptions = DEFAULTS,
        lines: Lines | Callable[[str], None] = write_line,
    ):
        self.suite, self.store, self.data_root = suite, store, Path(data_root)
        self.accelerator = build_accelerator(options)
        self.alone = self.accelerator.num_processes == 1
        self.lines = lines if isinstance(lines, Lines) else Lines(lines)
        if not self.accelerator.is_main_process:
            self.lines = Lines(_nothing)
        workers = decoding_processes(self.accelerator.device, processes_here(), options.workers)
        self.options = dataclasses.replace(options, workers=workers)
        names = options.trackers if self.accelerator.is_main_process else ()
        self.trackers = Trackers(names, store.folder / "trackers", suite.name, self.lines.cell)
        self.trainer = Trainer(store, self.accelerator, self.options, self.lines, self.trackers)
        self._fingerprints: dict[str, str] = {}
        self._missing: dict[str, list[str]] = {}
        self._started = datetime.now(UTC).replace(microsecond=0)

    def run(self) -> Summary:
        """Every cell that is not done; cells that another runner holds are waited for at the end.

        Raises: KeyboardInterrupt, after the checkpoint of the running cell is written; StoreError where results cannot
        be written from the start.
        """
        clock = time.perf_counter()
        with failing_together():
            if self.accelerator.is_main_process:
                self.store.check_writable()
        summary, waiting, count = Summary(), [], len(self.suite.cells)
        beside = f", {self.options.workers} processes decode" if self.options.workers else ""
        where = f"{self.accelerator.device}, precision {self._precision()}{beside}"
        self.lines.say(f"{self.suite.name}: {count} cells on {where}")
        for number, cell in enumerate(self.suite.cells, 1):
            if not self._one(cell, f"[{number}/{count}]", summary, wait=False):
                waiting.append((number, cell))
        for number, cell in waiting:
            self._one(cell, f"[{number}/{count}]", summary, wait=True)
        summary.seconds = time.perf_counter() - clock
        return summary

    def _precision(self) -> str:
        return "float32" if self.accelerator.mixed_precision == "no" else self.accelerator.mixed_precision

    def _one(self, cell: Cell, place: str, summary: Summary, wait: bool) -> bool:
        """False where another runner has the cell and we do not wait. Whatever is raised in the cell fails it alone."""
        task: Task | None = None
        try:
            with failing_together():
                task = cell_task(cell, self.data_root)
                missing = self._missing_of(cell, task)
            if missing:
                summary.blocked.append((cell.label, missing[0]))
                self.lines.begin(place, cell.label, f"blocked: {missing[0]}")
                return True
            keys, todo = self._todo(cell, task)
            if not todo:
                (summary.ran if self._by_helper(keys) else summary.done).append(cell.label)
                self.lines.begin(place, cell.label, "done")
                return True
            return self._claimed(cell, task, place, summary, wait)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) or (isinstance(error, SystemExit) and not self.alone):
                raise  # the launcher then ends the other processes of the group
            self._fail(cell, task, error, summary)
            return True

    def _claimed(self, cell: Cell, task: Task, place: str, summary: Summary, wait: bool) -> bool:
        if not self.alone:
            # the processes of a group go through all cells together; only other groups' claims could differ
            self._cell(cell, task, place, summary)
            return True
        name = cell_key(cell, task)
        with self.store.locked(name) if wait else self.store.claim(name) as ours:
            if ours is False:
                self.lines.begin(place, cell.label, "another runner has it")
                return False
            if wait and (error := self._failed_elsewhere(name)):
                summary.failed.append((cell.label, error))
                return True
            self.store.check_writable()
            self._cell(cell, task, place, summary)
        return True

    def _missing_of(self, cell: Cell, task: Task) -> list[str]:
        """What of the data is missing, looked for once for all cells that read the same."""
        where = key_of({"task": cell.task, "options": dict(cell.options), "splits": cell.splits})
        if where not in self._missing:
            self._missing[where] = missing_of(task, cell.splits)
        return self._missing[where]

    def _failed_elsewhere(self, name: str) -> str | None:
        """The error of another runner that tried the cell while this one ran."""
        entries = self.store.entries(name)
        if not entries or entries[-1].ok:
            return None
        last = self.store.row(entries[-1])
        return last.error if self._is_new(last) else None

    def _by_helper(self, keys: Keys) -> bool:
        """Whether another process of this command has written the cell's newest row."""
        if not self.lines.several:
            return False
        done = self.store.done()
        newest = max((done[k] for k in keys.rows.values() if k in done), key=lambda e: e.offset, default=None)
        return newest is not None and self._is_new(self.store.row(newest))

    def _is_new(self, row: Row) -> bool:
        return row.started is not None and datetime.fromisoformat(row.started) >= self._started

    def _fail(self, cell: Cell, task: Task | None, error: BaseException, summary: Summary, **of_view: Any) -> None:
        if "killed by signal: Terminated" in text_of(error):
            time.sleep(1.0)  # a scheduler's signal goes to all processes; ours is on its way, and is no failure
        text = one_line(error)
        if self.accelerator.is_main_process:
            try:
                self.store.append([failed_row(cell, task, error, **of_view)])
            except Exception as unwritten:  # the other cells may still find room
                text += f" (and no row of it could be written: {text_of(unwritten)})"
        summary.failed.append((cell.label, text))
        self.lines.say(f"  failed: {cell.label}: {text}")

    def _keys(self, cell: Cell, task: Task) -> Keys:
        data, weights = self._fingerprint(cell, task), self.trainer.weights_hash(cell)
        train = key_of({
            "cell": cell_key(cell, task), "weights": weights, "data": data, "precision": self._precision(),
        })  # fmt: skip
        rows = {(s, v): key_of({"train": train, "view": view_key(task, v, s)}) for s in cell.splits for v in cell.views}
        return Keys(train, weights, data, rows)

    def _todo(self, cell: Cell, task: Task) -> tuple[Keys, dict[tuple[str, View], str]]:
        """The cell's keys, and those of them that have no row yet."""
        with failing_together():
            keys, done = self._keys(cell, task), self.store.done()
            whole = {
                key for key in keys.rows.values() if key in done and (self.options.skip_broken or not done[key].skipped)
            }
        known = of_main(whole)
        return keys, {place: key for place, key in keys.rows.items() if key not in known}

    def _cell(self, cell: Cell, task: Task, place: str, summary: Summary) -> None:
        """Train where needed, evaluate what is missing, write the rows."""
        started, clock = datetime.now(UTC), time.perf_counter()
        keys, todo = self._todo(cell, task)  # once more: it may have been done while we waited
        if not todo:
            (summary.ran if self._by_helper(keys) else summary.done).append(cell.label)
            self.lines.begin(place, cell.label, "done")
            return
        self.lines.begin(place, cell.label, f"{len(todo)} of {len(keys.rows)} rows to do")
        shared = identity_of(cell, task, started)
        with self._tracked(keys.train, shared):
            trained = self.trainer.obtain(cell, task, keys.train)
            shared |= {"train_key": keys.train, "weights_hash": keys.weights, "data_fingerprint": keys.data}
            for split in cell.splits:
                views = {v: key for (s, v), key in todo.items() if s == split}
                if not views:
                    continue
                result = self._evaluate(task, trained, list(views), split)
                rows = self._write(result, trained, task, shared, split, views, started, clock)
                if self.accelerator.is_main_process:
                    self._pictures(cell, task, trained, split, result)
                    self.trackers.evaluation(rows)
                self.lines.cell(shown_values(task, split, rows))
                for note in dict.fromkeys(n for r in rows for n in r.notes):
                    self.lines.cell(note)
                for view, why in result.failed.items():
                    of_view = {"split": split, "eval_grid": side(view.grid), "resize": view.resize}
                    self._fail(cell, task, Diverged(why), summary, **of_view)
        summary.ran.append(cell.label)

    def _write(
        self,
        result: SweepResult,
        trained: Trained,
        task: Task,
        shared: Mapping[str, Any],
        split: str,
        keys: Mapping[View, str],
        started: datetime,
        clock: float,
    ) -> list[Row]:
        main = self.accelerator.is_main_process
        made = Made(
            self._precision(), self.accelerator.device.type if self.accelerator.device.type == "cpu" else
            str(self.accelerator.device), self.store.save_samples if main else None,
        )  # fmt: skip
        with failing_together():
            rows = rows_of(result, trained, task, shared, split, keys, made)
            seconds = round(time.perf_counter() - clock, 3)
            # not from the wall clock, which may have been set back meanwhile
            finished = (started + timedelta(seconds=seconds)).isoformat(timespec="seconds")
            rows = [row.changed(seconds=seconds, finished=finished) for row in rows]
            if main:
                self.store.append(rows)
        return rows

    @contextlib.contextmanager
    def _tracked(self, key: str, shared: Mapping[str, Any]) -> Iterator[None]:
        asked = ("suite", "task", "backbone", "train_grid", "seed", "options", "backbone_options", "protocol", "recipe")
        self.trackers.start(key, str(shared["label"]), {name: shared[name] for name in asked})
        try:
            yield
        finally:
            self.trackers.finish()

    def _pictures(self, cell: Cell, task: Task, trained: Trained, split: str, result: SweepResult) -> None:
        """A few pictures of the first seed; a picture that fails is said and costs no row."""
        samples = {view: values for view, _, values in result.rows if values is not None}
        if cell.seed or not samples:
            return
        order = sorted(samples, key=lambda v: v.grid)
        chosen = dict.fromkeys(order[i * (len(order) - 1) // (PICTURED - 1)] for i in range(PICTURED))
        try:
            trained.model.eval()
            with self.accelerator.autocast():  # as the rows were made
                made = task.pictures(trained.model, split, {v: samples[v] for v in chosen}, self.accelerator.device)
            if made:
                keep_pictures(self.store, f"{cell.label}, {split}", made)
        except Exception as error:
            self.lines.cell(f"no pictures: {one_line(error)}")

    def _evaluate(self, task: Task, trained: Trained, views: Sequence[View], split: str) -> SweepResult:
        """One pass; the choice that won on minival is evaluated under each view's own key."""
        asked = {dataclasses.replace(v, options=tuple({**trained.choice, **dict(v.options)}.items())): v for v in views}
        self.trainer.calibrate(task, trained.model, views)
        result = self.trainer.sweep(task, trained.model, list(asked), split)
        result.rows = [(asked[v], metrics, samples) for v, metrics, samples in result.rows]
        result.seconds = {asked[v]: s for v, s in result.seconds.items()}
        result.failed = {asked[v]: why for v, why in result.failed.items()}
        return result

    def _fingerprint(self, cell: Cell, task: Task) -> str:
        where = key_of({"task": cell.task, "options": dict(cell.options)})
        if where not in self._fingerprints:
            self._fingerprints[where] = task.fingerprint("train" if "train" in task.card.splits else cell.splits[0])
        return self._fingerprints[where]


def _nothing(text: str) -> None:
    """Only one process of a group speaks."""
