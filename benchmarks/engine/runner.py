"""Carries a plan out: skip what is done, run a cell, write its rows or its failure, go on."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from backbones.grids import parse_schedule
from benchmarks.engine.batches.prefetch import decoding_processes, processes_here
from benchmarks.engine.bfloat16 import bfloat16_weights
from benchmarks.engine.finite import Diverged
from benchmarks.engine.identity import Identities, Identity, cell_key, precision_name
from benchmarks.engine.plan import Obstacles, rows_of
from benchmarks.engine.running.finished import opening
from benchmarks.engine.running.interrupts import while_stopping
from benchmarks.engine.running.lines import Lines, write_line
from benchmarks.engine.running.options import RunOptions, build_accelerator, evaluation_weights
from benchmarks.engine.running.pictured import pictured
from benchmarks.engine.running.processes import failing_together, of_main
from benchmarks.engine.running.rows import Made, alike, asked_of, failed_row, of_view, rows_of_sweep, shown_values
from benchmarks.engine.running.summary import Summary
from benchmarks.engine.suite import Cell, Suite, cell_task
from benchmarks.engine.sweep import SweepResult
from benchmarks.engine.training.trainer import Trained, Trainer
from benchmarks.store import Row, Store
from benchmarks.store.failures import one_line, text_of
from benchmarks.store.gallery import keep_pictures
from benchmarks.store.trackers import Trackers
from tasks.contract import Task, View

__all__ = ["RunOptions", "Runner", "Summary"]
DEFAULTS = RunOptions()


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
        self._weights = evaluation_weights(str(self.accelerator.device), self._precision(), options.eval_weights)
        self._identities = Identities(self._precision(), options.limit, self._weights)
        self._obstacles = Obstacles(options.skip_broken, self.accelerator.num_processes, connect=True)
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
        where, asked = str(self.accelerator.device), self.options
        for text in opening(self.suite, where, self._precision(), asked.workers, asked.limit):
            self.lines.say(text)
        for number, cell in enumerate(self.suite.cells, 1):
            if not self._one(cell, f"[{number}/{count}]", summary, wait=False):
                waiting.append((number, cell))
        for number, cell in waiting:
            self._one(cell, f"[{number}/{count}]", summary, wait=True)
        summary.seconds = time.perf_counter() - clock
        return summary

    def _precision(self) -> str:
        return precision_name(self.accelerator.mixed_precision)

    def _one(self, cell: Cell, place: str, summary: Summary, wait: bool) -> bool:
        """False where another runner has the cell and we do not wait. Whatever is raised in the cell fails it alone."""
        task: Task | None = None
        try:
            with failing_together():
                task = cell_task(cell, self.data_root)
                missing = self._obstacles.of(cell, task)
            if missing:
                summary.blocked.append((cell.label, missing[0]))
                self.lines.begin(place, cell.label, f"blocked: {missing[0]}")
                return True
            identity, todo = self._todo(cell, task)
            if not todo:
                (summary.ran if self._by_helper(identity) else summary.done).append(cell.label)
                self.lines.begin(place, cell.label, "done")
                return True
            return self._claimed(cell, task, place, summary, wait)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) or (isinstance(error, SystemExit) and not self.alone):
                raise  # the launcher then ends the other processes of the group
            if while_stopping(error):
                raise KeyboardInterrupt from error
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

    def _failed_elsewhere(self, name: str) -> str | None:
        """The error of another runner that tried the cell while this one ran."""
        entries = self.store.entries(name)
        if not entries or entries[-1].ok:
            return None
        last = self.store.row(entries[-1])
        return last.error if self._is_new(last) else None

    def _by_helper(self, identity: Identity) -> bool:
        """Whether another process of this command has written the cell's newest row."""
        if not self.lines.several:
            return False
        done = self.store.done()
        newest = max((done[k] for k in identity.rows.values() if k in done), key=lambda e: e.offset, default=None)
        return newest is not None and self._is_new(self.store.row(newest))

    def _is_new(self, row: Row) -> bool:
        return row.started is not None and datetime.fromisoformat(row.started) >= self._started

    def _fail(self, cell: Cell, task: Task | None, error: BaseException, summary: Summary, **more: Any) -> None:
        if "killed by signal: Terminated" in text_of(error):
            time.sleep(1.0)  # a scheduler's signal goes to all processes; ours is on its way, and is no failure
        text = one_line(error)
        if self.accelerator.is_main_process:
            try:
                self.store.append([failed_row(cell, task, error, {**more, "limit": self.options.limit})])
            except Exception as unwritten:  # the other cells may still find room
                text += f" (and no row of it could be written: {text_of(unwritten)})"
        summary.failed.append((cell.label, text))
        self.lines.say(f"  failed: {cell.label}: {text}")

    def _todo(self, cell: Cell, task: Task) -> tuple[Identity, list[tuple[str, View]]]:
        """The cell's keys, and each (split, view) that has no row yet."""
        with failing_together():
            identity = self._identities.of(cell, task)
            known = set(rows_of(identity, self.store, self.options.skip_broken))
        known = of_main(known)
        return identity, [pair for pair in identity.rows if pair not in known]

    def _cell(self, cell: Cell, task: Task, place: str, summary: Summary) -> None:
        """Train where needed, evaluate what is missing, write the rows."""
        started, clock = datetime.now(UTC), time.perf_counter()
        identity, todo = self._todo(cell, task)  # once more: it may have been done while we waited
        if not todo:
            (summary.ran if self._by_helper(identity) else summary.done).append(cell.label)
            self.lines.begin(place, cell.label, "done")
            return
        self.lines.begin(place, cell.label, f"{len(todo)} of {len(identity.rows)} rows to do")
        asked = asked_of(cell, task, started) | {
            "train_key": identity.train, "weights_hash": identity.weights, "limit": self.options.limit,
        }  # fmt: skip
        with self._tracked(identity.train, asked):
            trained = self.trainer.obtain(cell, task, identity)
            for split in cell.splits:
                views = [v for s, v in todo if s == split]
                if not views:
                    continue
                result = self._evaluate(task, trained, views, split)
                rows = self._write(result, trained, task, asked, split, identity, started, clock)
                if self.accelerator.is_main_process:
                    if not self.options.limit:  # they are of samples by their place in the whole split
                        self._pictures(cell, task, trained, split, result)
                    self.trackers.evaluation(rows)
                self.lines.cell(shown_values(task, split, rows))
                for note in dict.fromkeys(n for r in rows for n in r.notes):
                    self.lines.cell(note)
                for views_alike in alike(result):
                    self.lines.cell(f"identical samples at {', '.join(map(str, views_alike))}")
                for view, why in result.failed.items():
                    self._fail(cell, task, Diverged(why), summary, **of_view(split, view, identity))
        summary.ran.append(cell.label)

    def _write(
        self,
        result: SweepResult,
        trained: Trained,
        task: Task,
        asked: Mapping[str, Any],
        split: str,
        identity: Identity,
        started: datetime,
        clock: float,
    ) -> list[Row]:
        main = self.accelerator.is_main_process
        made = Made(
            self._precision(), self.accelerator.device.type if self.accelerator.device.type == "cpu" else
            str(self.accelerator.device), self.store.save_samples if main else None,
        )  # fmt: skip
        with failing_together():
            rows = rows_of_sweep(result, trained, task, asked, split, identity, made)
            seconds = round(time.perf_counter() - clock, 3)
            # not from the wall clock, which may have been set back meanwhile
            finished = (started + timedelta(seconds=seconds)).isoformat(timespec="seconds")
            rows = [row.changed(seconds=seconds, finished=finished) for row in rows]
            if main:
                self.store.append(rows)
        return rows

    @contextlib.contextmanager
    def _tracked(self, key: str, asked: Mapping[str, Any]) -> Iterator[None]:
        names = ("suite", "task", "backbone", "train_grid", "seed", "options", "backbone_options", "protocol", "recipe")
        self.trackers.start(key, str(asked["label"]), {name: asked[name] for name in names})
        try:
            yield
        finally:
            self.trackers.finish()

    def _pictures(self, cell: Cell, task: Task, trained: Trained, split: str, result: SweepResult) -> None:
        """A few pictures of the first seed; a picture that fails is said and costs no row."""
        samples = {view: values for view, _, values in result.rows if values is not None}
        if cell.seed or not samples:
            return
        try:
            trained_at = () if cell.train is None else parse_schedule(cell.train).grids
            found = {view: metrics for view, metrics, _ in result.rows if view in samples}
            chosen = pictured(found, task.card.metric, trained_at)
            trained.model.eval()
            with self.accelerator.autocast(), bfloat16_weights(trained.model, self._weights == "bf16"):  # as the rows
                made = task.pictures(trained.model, split, {v: samples[v] for v in chosen}, self.accelerator.device)
            if made:
                keep_pictures(self.store, f"{cell.label}, {split}", made, cell_key(cell, task))
        except Exception as error:
            self.lines.cell(f"no pictures: {one_line(error)}")

    def _evaluate(self, task: Task, trained: Trained, views: Sequence[View], split: str) -> SweepResult:
        """One pass; what won on minival is evaluated under each view's own key."""
        chosen = {v: dataclasses.replace(v, options=tuple((trained.choice | dict(v.options)).items())) for v in views}
        self.trainer.calibrate(task, trained.model, views)
        asked_for = list(dict.fromkeys(chosen.values()))
        result = self.trainer.sweep(task, trained.model, asked_for, split, self.options.limit, self._weights)
        rows = {view: (metrics, samples) for view, metrics, samples in result.rows}
        result.rows = [(asked, *rows[view]) for asked, view in chosen.items() if view in rows]
        result.seconds = {asked: result.seconds[view] for asked, view in chosen.items()}
        result.failed = {asked: result.failed[view] for asked, view in chosen.items() if view in result.failed}
        name = task.card.metric.name
        for asked, metrics, _ in result.rows:
            value = metrics.get(name, math.nan)  # AP of pictures without a box is left out
            if not math.isfinite(value):
                result.failed[asked] = f"{name} at {asked} is {value}"
        result.rows = [row for row in result.rows if row[0] not in result.failed]
        return result


def _nothing(text: str) -> None:
    """Only one process of a group speaks."""
