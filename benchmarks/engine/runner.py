"""Carries a plan out: skip what is done, run a cell, write its rows or its failure, go on."""

from __future__ import annotations

import dataclasses
import math
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from backbones.cost import macs
from backbones.grids import parse_schedule, patch_size
from benchmarks.engine.batches.prefetch import decoding_processes, processes_here
from benchmarks.engine.batches.resident import LIMIT_GIB
from benchmarks.engine.finite import Diverged
from benchmarks.engine.identity import Identities, Identity, cell_key, precision_name, samples_key
from benchmarks.engine.plan import Obstacles, rows_of
from benchmarks.engine.suite import Cell, Suite, cell_task
from benchmarks.engine.sweep import SweepResult
from benchmarks.engine.training.trainer import Trained, Trainer
from benchmarks.store import Row, Store, StoreError, environment
from benchmarks.store.gallery import keep_pictures
from tasks.contract import Grid, Task, TaskError, View

PICTURED = 4  # grids side by side in a picture


@dataclass(frozen=True)
class RunOptions:
    """How to run, nothing of what: none of this is part of a suite.

    `precision`: no (float32), bf16 or fp16; empty: bf16 on a GPU that has it, else float32. `every_seconds`: between
    checkpoints. `batch`: images decoded at once in evaluation. `token_budget`: tokens of a
    forward pass, None: no limit. `workers`: processes that decode, None: as many as `decoding_processes` says.
    `skip_broken`: pass over pictures that cannot be read, and count them. `resident_gib`: memory of the device that
    training pictures may take which are held there; 0: none are.
    """

    device: str = ""
    precision: str = ""
    every_seconds: float = 60.0
    batch: int = 64
    token_budget: int | None = None
    workers: int | None = None
    compile: bool = False
    tensorboard: bool = False
    skip_broken: bool = False
    resident_gib: float = LIMIT_GIB


@dataclass
class Summary:
    """Cells by what became of them; `failed` holds label and error, `blocked` label and what is missing."""

    done: list[str] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    blocked: list[tuple[str, str]] = field(default_factory=list)

    @property
    def status(self) -> int:
        """Exit status: 0 when every cell has its rows."""
        return 1 if self.failed or self.blocked else 0

    def lines(self) -> list[str]:
        """What to print at the end."""
        counts = (
            f"{len(self.ran)} run, {len(self.done)} done before, {len(self.failed)} failed, {len(self.blocked)} blocked"
        )
        return [
            counts,
            *(f"failed: {a}: {b}" for a, b in self.failed),
            *(f"blocked: {a}: {b}" for a, b in self.blocked),
        ]


def build_accelerator(options: RunOptions) -> Accelerator:
    """The device and precision of this process; a precision that the device lacks is said, not swapped silently.

    Raises: TaskError where a GPU is asked for and none is there.
    """
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device not in ("cpu", "cuda"):
        raise TaskError(f"no device {device!r}; there are: cpu, cuda (choose GPUs by CUDA_VISIBLE_DEVICES)")
    if device == "cuda" and not torch.cuda.is_available():
        raise TaskError("device cuda: this torch sees no GPU; use --device cpu")
    precision = options.precision or ("bf16" if device == "cuda" and torch.cuda.is_bf16_supported() else "no")
    if precision not in ("no", "bf16", "fp16"):
        raise TaskError(f"no precision {precision!r}; there are: no, bf16, fp16")
    if precision == "fp16":
        raise TaskError("precision fp16 needs loss scaling, which the loop does not do; use bf16 or no")
    return Accelerator(cpu=device == "cpu", mixed_precision=precision)


class Runner:
    """Runs the cells of a suite into a store.

    Example: `Runner(load_suite("demo"), Store("results/runs/demo"), "data").run().status`
    """

    def __init__(
        self,
        suite: Suite,
        store: Store,
        data_root: str | Path,
        options: RunOptions = RunOptions(),
        say: Callable[[str], None] | None = None,
    ):
        self.suite, self.store, self.data_root = suite, store, Path(data_root)
        self.say = say or (lambda text: print(text, flush=True))
        self.accelerator = build_accelerator(options)
        if not self.accelerator.is_main_process:
            self.say = lambda text: None
        workers = decoding_processes(self.accelerator.device, processes_here(), options.workers)
        self.options = dataclasses.replace(options, workers=workers)
        self.trainer = Trainer(store, self.accelerator, self.options, self.say)
        self._identities = Identities(self._precision())
        self._obstacles = Obstacles(options.skip_broken)
        self._started = datetime.now(UTC)

    def run(self) -> Summary:
        """Every cell that is not done; cells that another runner holds are waited for at the end.

        Raises: KeyboardInterrupt, after the checkpoint of the running cell is written; StoreError where results cannot
        be written from the start.
        """
        if self.accelerator.is_main_process:
            self.store.check_writable()
        summary, waiting, count = Summary(), [], len(self.suite.cells)
        beside = f", {self.options.workers} processes decode" if self.options.workers else ""
        where = f"{self.accelerator.device}, precision {self._precision()}{beside}"
        self.say(f"{self.suite.name}: {count} cells on {where}")
        for number, cell in enumerate(self.suite.cells, 1):
            if not self._one(cell, f"[{number}/{count}]", summary, wait=False):
                waiting.append((number, cell))
        for number, cell in waiting:
            self._one(cell, f"[{number}/{count}]", summary, wait=True)
        return summary

    def _precision(self) -> str:
        return precision_name(self.accelerator.mixed_precision)

    def _one(self, cell: Cell, place: str, summary: Summary, wait: bool) -> bool:
        """False where another runner has the cell and we do not wait."""
        try:
            task = cell_task(cell, self.data_root)
            missing = self._obstacles.of(cell, task)
        except Exception as error:
            self._fail(cell, None, error, summary)
            return True
        if missing:
            summary.blocked.append((cell.label, missing[0]))
            self.say(f"{place} {cell.label}: blocked: {missing[0]}")
            return True
        name = cell_key(cell, task)
        if self.accelerator.num_processes > 1:
            # the processes of a group go through all cells together; only other groups' claims could differ
            self._attempt(cell, task, place, summary)
            return True
        with self.store.locked(name) if wait else self.store.claim(name) as ours:
            if ours is False:
                self.say(f"{place} {cell.label}: another runner has it")
                return False
            if wait and (error := self._failed_elsewhere(name)):
                summary.failed.append((cell.label, error))
                return True
            self._attempt(cell, task, place, summary)
        return True

    def _attempt(self, cell: Cell, task: Task, place: str, summary: Summary) -> None:
        try:
            if self.accelerator.num_processes == 1:
                self.store.check_writable()
            wrote = self._cell(cell, task, place, summary)
        except Exception as error:
            self._fail(cell, task, error, summary)
        else:
            (summary.ran if wrote else summary.done).append(cell.label)

    def _failed_elsewhere(self, name: str) -> str | None:
        """The error of another runner that tried the cell while this one ran."""
        entries = self.store.entries(name)
        if not entries or entries[-1].ok:
            return None
        last = self.store.row(entries[-1])
        late = last.started is not None and datetime.fromisoformat(last.started) >= self._started
        return last.error if late else None

    def _fail(self, cell: Cell, task: Task | None, error: Exception, summary: Summary, **of_view: Any) -> None:
        text = one_line(error)
        asked = self._asked(cell, task) | of_view
        row = Row(**asked, status="failed", error=text, traceback=trace(error), env=environment())
        if self.accelerator.is_main_process:
            try:
                self.store.append([row])
            except StoreError as unwritten:  # the other cells may still find room
                text += f" (and no row of it could be written: {unwritten})"
        summary.failed.append((cell.label, text))
        self.say(f"  failed: {cell.label}: {text}")

    def _cell(self, cell: Cell, task: Task, place: str, summary: Summary) -> bool:
        """Train where needed, look at what is missing, write the rows. False where nothing was missing."""
        started, clock = datetime.now(UTC), time.perf_counter()
        identity = self._identities.of(cell, task)
        known = self._shared(set(rows_of(identity, self.store, self.options.skip_broken)))
        todo = [pair for pair in identity.rows if pair not in known]
        if not todo:
            self.say(f"{place} {cell.label}: done")
            return False
        self.say(f"{place} {cell.label}: {len(todo)} of {len(identity.rows)} rows to do")
        trained = self.trainer.obtain(cell, task, identity)
        asked = self._asked(cell, task) | {
            "train_key": identity.train, "weights_hash": identity.weights,
            "started": started.isoformat(timespec="seconds"),
        }  # fmt: skip
        for split in cell.splits:
            views = [v for s, v in todo if s == split]
            if not views:
                continue
            result = self._evaluate(task, trained, views, split)
            rows = self._rows(result, trained, task, asked, split, identity)
            seconds = round(time.perf_counter() - clock, 3)
            # not from the wall clock, which may have been set back meanwhile
            finished = (started + timedelta(seconds=seconds)).isoformat(timespec="seconds")
            rows = [row.changed(seconds=seconds, finished=finished) for row in rows]
            if self.accelerator.is_main_process:
                self.store.append(rows)
                self._pictures(cell, task, trained, split, result)
            metric = task.card.metric
            values = "  ".join(f"{r.eval_grid}: {metric.show(r.metrics.get(metric.name), unit=False)}" for r in rows)
            self.say(f"  {split} {metric.label} at grid {values}")
            for note in dict.fromkeys(n for r in rows for n in r.notes):
                self.say(f"  {note}")
            for views_alike in alike(result):
                self.say(f"  identical samples at {', '.join(map(str, views_alike))}")
            for view, why in result.failed.items():
                self._fail(cell, task, Diverged(why), summary, **self._of_view(split, view, identity))
        return True

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
            self.say(f"  no pictures of {cell.label}: {type(error).__name__}: {error}")

    def _evaluate(self, task: Task, trained: Trained, views: Sequence[View], split: str) -> SweepResult:
        """One pass; what won on minival is evaluated under each view's own key."""
        chosen = {v: dataclasses.replace(v, options=tuple((trained.choice | dict(v.options)).items())) for v in views}
        self.trainer.calibrate(task, trained.model, views)
        result = self.trainer.sweep(task, trained.model, list(dict.fromkeys(chosen.values())), split)
        rows = {view: found for view, *found in result.rows}
        result.rows = [(asked, *rows[view]) for asked, view in chosen.items() if view in rows]
        result.seconds = {asked: result.seconds[view] for asked, view in chosen.items()}
        result.failed = {asked: result.failed[view] for asked, view in chosen.items() if view in result.failed}
        name = task.card.metric.name
        for asked, metrics, _ in result.rows:
            if not math.isfinite(metrics[name]):
                result.failed[asked] = f"{name} at {asked} is {metrics[name]}"
        result.rows = [row for row in result.rows if row[0] not in result.failed]
        return result

    def _of_view(self, split: str, view: View, identity: Identity) -> dict[str, Any]:
        """What a row of a view says of it, whether it went well or not."""
        return {
            "split": split, "eval_grid": _side(view.grid), "resize": view.resize, "view_key": identity.views[view],
            "view_options": dict(view.options), "data_identity": {**identity.train_data, **identity.data[split, view]},
        }  # fmt: skip

    def _rows(
        self,
        result: SweepResult,
        trained: Trained,
        task: Task,
        asked: dict[str, Any],
        split: str,
        identity: Identity,
    ) -> list[Row]:
        rows, encoder = [], getattr(trained.model, "backbone", None)
        if asked["flexible"] is None:
            asked = asked | {"flexible": getattr(encoder, "flexible", None)}
        hashes = {view: samples_key(samples) for view, _, samples in result.rows}
        same_as = {view: [v for v in group if v != view] for group in alike(result) for view in group}
        for view, metrics, samples in result.rows:
            key = identity.rows[split, view]
            counted = macs_or_none(encoder, view.grid, task.card.image_size)
            seconds = result.seconds[view]
            side = task.card.image_size
            patch = patch_size(side, view.grid)
            options, kept = trained.choice | dict(view.options), None
            if samples is not None and self.accelerator.is_main_process:
                kept = self.store.save_samples(key, samples)
            cost = {
                "macs": counted, "images_per_second": round(result.images / seconds, 2) if seconds else None,
                "macs_per_second": int(counted * result.images / seconds) if counted and seconds else None,
            }  # fmt: skip
            rows.append(Row(
                **asked, **self._of_view(split, view, identity) | {"view_options": options}, row_key=key,
                patch=_side(patch), eval_options=task.at(View(view.grid, options=options)).options.stage("eval"),
                metrics={k: v if math.isfinite(v) else None for k, v in metrics.items()}, images=result.images,
                training=trained.notes, precision=self._precision(), cost=cost, device=str(self.accelerator.device),
                notes=[*trained.notes.get("notes", []), *result.notes], env=environment(), samples=kept,
                samples_hash=hashes[view],
                identical_to=[identity.rows[split, other] for other in same_as.get(view, ())],
                skipped=result.skipped | ({"train": s} if (s := trained.notes.get("skipped")) else {}),
            ))  # fmt: skip
        return rows

    def _asked(self, cell: Cell, task: Task | None) -> dict[str, Any]:
        """What a row of a cell says of what was asked for."""
        grid: Any = cell.train
        if grid is not None and parse_schedule(grid).kind == "fixed":
            grid = _side(parse_schedule(grid).grids[0])
        row = {
            "suite": cell.suite, "task": cell.task, "backbone": cell.backbone, "train_grid": grid, "seed": cell.seed,
            "options": dict(cell.options), "backbone_options": dict(cell.backbone_options), "label": cell.label,
            "flexible": cell.flexible, "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }  # fmt: skip
        if task is not None:
            row |= {
                "protocol": task.card.protocol, "metric": task.card.metric.name,
                "measure": dataclasses.asdict(task.card.metric), "cluster": task.card.cluster or None,
                "higher_is_better": task.card.metric.higher_is_better,
                "image_size": task.card.image_size, "recipe": dataclasses.asdict(task.recipe),
                "steps": task.recipe.steps, "cell_key": cell_key(cell, task),
            }  # fmt: skip
        return row

    def _shared(self, value: Any) -> Any:
        """The main process's value, in all processes: they must decide alike."""
        return broadcast_object_list([value])[0] if self.accelerator.num_processes > 1 else value


def macs_or_none(encoder: Any, grid: Grid, side: int) -> int | None:
    """Multiply-adds of a backbone at a grid of the task's images; None of a model without one, or that cannot tell."""
    encoder = getattr(encoder, "module", encoder)  # a locked one is kept off the module tree
    if encoder is None:
        return None
    try:
        return macs(encoder, grid, side)
    except Exception:  # a plug-in's forward pass over zeros; its cost stays unknown and its rows stand
        return None


def alike(result: SweepResult) -> list[list[View]]:
    """Views whose per-sample values are the same to the byte; what they differ in changed nothing."""
    groups: dict[str | None, list[View]] = {}
    for view, _, samples in result.rows:
        groups.setdefault(samples_key(samples), []).append(view)
    return [views for key, views in groups.items() if key is not None and len(views) > 1]


def one_line(error: BaseException) -> str:
    """What failed, for a row: the first line of the message; of a worker's error, its own last line.

    Example: `one_line(ValueError("no such grid"))` is "ValueError: no such grid"
    """
    lines = str(error).strip().splitlines() or ["no message"]
    if lines[0].startswith("Caught ") and "DataLoader worker" in lines[0]:
        name, _, text = lines[-1].partition(": ")
        return f"{name.rpartition('.')[2]}: {text}"
    if "DataLoader worker" in lines[0]:
        died = "a process that decodes pictures died, often for want of memory; try fewer --workers"
        return f"{type(error).__name__}: {died} ({lines[0].strip()})"
    return f"{type(error).__name__}: {lines[0]}"


def trace(error: BaseException) -> str:
    """The traceback as text; of an error whose own text fails, as far as it goes."""
    try:
        return "".join(traceback.format_exception(error))
    except Exception:
        return "".join(traceback.format_tb(error.__traceback__)) + type(error).__name__


def _side(grid: tuple[int, int]) -> int | str:
    return grid[0] if grid[0] == grid[1] else f"{grid[0]}x{grid[1]}"
