"""From a cell to a trained model: candidates on minival, checkpoints, weights kept for later views."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from backbones import build_backbone
from backbones.grids import Grid, parse_schedule, valid_grids
from backbones.registry import takes_option
from benchmarks.engine.batches.evaluation import eval_batches
from benchmarks.engine.batches.resident import Residents
from benchmarks.engine.batches.skipping import may_skip
from benchmarks.engine.finite import Diverged, broken_weight
from benchmarks.engine.identity import Identity, candidate_key
from benchmarks.engine.memory import peak_bytes
from benchmarks.engine.randomness import seed_of
from benchmarks.engine.running.lines import Lines
from benchmarks.engine.running.options import RunOptions, evaluation_batch, joined_pictures, token_limit
from benchmarks.engine.running.processes import failing_together, of_main
from benchmarks.engine.running.summary import duration
from benchmarks.engine.suite import Cell, changed
from benchmarks.engine.sweep import SweepResult, sweep
from benchmarks.engine.training.checkpoints import open_checkpoint
from benchmarks.engine.training.embeddings import LockedFeatures
from benchmarks.engine.training.loop import Training, finetune
from benchmarks.engine.training.unused import lock
from benchmarks.store import Store, write_atomically
from benchmarks.store.trackers import Trackers
from tasks.contract import Recipe, Task, TaskError, View
from tasks.contract.frozen import keep_in_bfloat16


@dataclass
class Trained:
    """A model ready to be looked at. `choice`: view options that won on minival. `notes`: for the row."""

    model: nn.Module
    choice: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


class Trainer:
    """Gives trained models, from their kept weights where there are any."""

    def __init__(
        self,
        store: Store,
        accelerator: Accelerator,
        options: RunOptions,
        lines: Lines,
        trackers: Trackers | None = None,
    ):
        self.store, self.accelerator, self.options, self.lines = store, accelerator, options, lines
        self.trackers, self.workers = trackers, options.workers or 0
        self.folder = store.folder / "checkpoints"
        self.residents = Residents(options.resident_gib, lines.cell)
        self._batch = 1

    def obtain(self, cell: Cell, task: Task, identity: Identity) -> Trained:
        """The trained model of a cell. With candidates, the one that is best on minival at the training grid.

        Raises: TaskError for an invalid recipe or invalid data.
        """
        candidates, train_key = [dict(c) for c in task.recipe.candidates], identity.train
        base = changed(task.recipe, {"candidates": ()})
        task = copy.copy(task)  # it gets each candidate's recipe; the caller's keeps the cell's
        if not base.steps:
            with failing_together():
                model = self._fresh(cell, task, base)
                told = self._start(cell, task, model)
            return Trained(model, self._choice(cell, task, model, train_key), {"steps": 0} | told)
        recipes = [changed(base, c) for c in candidates] or [base]
        if len(recipes) == 1:
            return self._trained(cell, task, recipes[0], train_key, identity)
        scores = []
        for number, recipe in enumerate(recipes, 1):
            key = candidate_key(train_key, recipe)
            found = self._read(f"{key}.minival.json")
            if found is None:
                self.lines.cell(f"candidate {number}/{len(recipes)}: {candidates[number - 1]}")
                found = {"candidate": candidates[number - 1], "score": self._compete(cell, task, recipe, key, identity)}
                self._write(f"{key}.minival.json", found)
            scores.append(found)
        finished = [i for i, found in enumerate(scores) if found["score"] is not None]
        if not finished:
            raise TaskError(f"all {len(scores)} candidates diverged; lower their learning rates")
        metric = task.card.metric
        best = metric.best({i: scores[i]["score"] for i in finished})
        shown = metric.show(scores[best]["score"])
        self.lines.cell(f"on minival {metric.name} {shown} wins: {scores[best]['candidate']}")
        key = candidate_key(train_key, recipes[best])
        trained = self._trained(cell, task, recipes[best], key, identity)
        if self.accelerator.is_main_process:
            for i, recipe in enumerate(recipes):
                if i != best:
                    for end in (".pt", ".partial.pt"):  # a candidate that diverged leaves its checkpoint
                        self._path(f"{candidate_key(train_key, recipe)}{end}").unlink(missing_ok=True)
        trained.notes |= {"candidates": scores, "won": best}
        return trained

    def _trained(self, cell: Cell, task: Task, recipe: Recipe, key: str, identity: Identity) -> Trained:
        """Train under one recipe, or open the weights that this key left before."""
        task.recipe, self._batch = recipe, recipe.batch
        final, partial = self._path(f"{key}.pt"), self._path(f"{key}.partial.pt")
        with failing_together():
            model = self._fresh(cell, task, recipe)
        kept = open_checkpoint(final, self.accelerator.device) if of_main(final.exists()) else None
        if kept and kept["notes"].get("skipped") and not self.options.skip_broken:
            kept = None  # weights that have not seen every picture are no answer to a run that wants all
        if kept:
            model.load_state_dict(kept["model"])
            notes = kept["notes"]
        else:
            with failing_together():
                told = self._start(cell, task, model)
            if locked := lock(model, recipe):
                told_of = ", ".join(f"{prefix} ({count:,} weights)" for prefix, count in locked.items())
                self.lines.cell(f"locked, as their factor in lr_groups is 0: {told_of}")
            schedule = parse_schedule(cell.train or "")
            schedule = dataclasses.replace(schedule, seed=cell.seed)
            training = finetune(
                task, model, recipe, schedule, self.accelerator, seed=cell.seed, checkpoint=partial,
                every_seconds=self.options.every_seconds, workers=self.workers,
                progress=self._progress(), compile=self.options.compile,
                features=self._features(cell, task, model, identity),
                skip=may_skip(task, self.options.skip_broken), residents=self.residents,
            )  # fmt: skip
            if broken := broken_weight(model):
                raise Diverged(
                    f"{broken} is not finite after {training.steps} steps: lower the learning rate ({recipe.lr})"
                )
            notes = _notes(training) | told | {"peak_bytes": peak_bytes(self.accelerator.device)}
            with failing_together():
                if self.accelerator.is_main_process:
                    state = {"model": model.state_dict(), "notes": notes}
                    write_atomically(final, lambda path: torch.save(state, path))
                    partial.unlink(missing_ok=True)
        return Trained(model, self._choice(cell, task, model, key), dict(notes))

    def _features(self, cell: Cell, task: Task, model: nn.Module, identity: Identity) -> LockedFeatures | None:
        a, encode = self.accelerator, task.locked_encoder(model.eval())
        if encode is None:
            return None
        decides = {
            "weights": identity.weights, "data": identity.train_data["train"], "task": cell.task, "seed": task.seed,
            "options": task.options.stage("train"), "precision": a.mixed_precision,
            "resize": cell.backbone_options.get("resize"),
        } | ({"residual": task.recipe.residual} if task.recipe.residual != "float32" else {})  # fmt: skip
        return LockedFeatures(
            task, encode, self.store.folder / "embeddings", decides, a.device, self._decoded(task),
            self.workers, a.autocast, self.lines.cell,
        )  # fmt: skip

    def _decoded(self, task: Task) -> int:
        return self.options.batch or evaluation_batch(self.accelerator.device, task.card.image_size)

    def _fresh(self, cell: Cell, task: Task, recipe: Recipe) -> nn.Module:
        drops = bool(recipe.drop_path) and takes_option(cell.backbone, "drop_path")
        more = {"drop_path": recipe.drop_path} if drops else {}
        if recipe.drop_path and not drops:
            self.lines.cell(f"{cell.backbone} has no stochastic depth: drop_path {recipe.drop_path} is not applied")
        torch.manual_seed(seed_of("backbone", cell.seed))  # of weights that are not loaded
        encoder = build_backbone(cell.backbone, **more, **cell.backbone_options)
        torch.manual_seed(seed_of("head", cell.seed))
        model = task.in_training().model(encoder).to(self.accelerator.device)
        if self.accelerator.mixed_precision == "bf16":
            keep_in_bfloat16(model)
        return model

    def _start(self, cell: Cell, task: Task, model: nn.Module) -> dict[str, str]:
        """Load what a new model starts from beside its backbone; what a row says of it."""
        start = task.start(cell.backbone)
        if start is None:
            return {}
        start.load(model)
        self.lines.cell(f"starts from {start.told()}")
        return {"start": start.told()}

    def _choice(self, cell: Cell, task: Task, model: nn.Module, key: str) -> dict[str, Any]:
        """View options that win on minival at the training grid (which probe, say); none where nothing is to choose."""
        choices = task.choices()
        if not choices:
            return {}
        found = self._read(f"{key}.choice.json")
        if found is None:
            grid = parse_schedule(cell.train).grids[-1] if cell.train else _own_grid(model, task)
            views = [View(grid, options=c) for c in choices]
            result = self.sweep(task, model, views, "minival")
            scores = {v: m[task.card.metric.name] for v, m, _ in result.rows}
            if not scores:
                raise Diverged(next(iter(result.failed.values())))
            best = task.card.metric.best(scores)
            found = {"choice": dict(best.options), "scores": [scores.get(v) for v in views]}
            self._write(f"{key}.choice.json", found)
        return found["choice"]

    def _compete(self, cell: Cell, task: Task, recipe: Recipe, key: str, identity: Identity) -> float | None:
        """The candidate's score on minival, None where its training diverged."""
        try:
            trained = self._trained(cell, task, recipe, key, identity)
        except Diverged as error:
            self.lines.cell(f"diverged: {error}")
            return None
        views = [View(g, options=trained.choice) for g in parse_schedule(cell.train or "").grids]
        result = self.sweep(task, trained.model, views, "minival")
        if result.failed:
            self.lines.cell(f"diverged: {next(iter(result.failed.values()))}")
            return None
        return sum(m[task.card.metric.name] for _, m, _ in result.rows) / len(result.rows)

    def sweep(
        self, task: Task, model: nn.Module, views: Sequence[View], split: str, limit: int | None = None,
        weights: str = "float32",
    ) -> SweepResult:  # fmt: skip
        """One pass with this run's device, precision and budget.

        What is chosen on minival is chosen on all of it and with the weights as they were trained, so that a smoke test
        and other weights in evaluation leave what a whole run would.
        """
        a = self.accelerator
        return sweep(
            task, model, views, split, device=a.device, batch=self._decoded(task),
            token_budget=token_limit(a.device, self.options.token_budget),
            most=joined_pictures(task.card.image_size), workers=self.workers,
            autocast=a.autocast if a.mixed_precision != "no" else None, rank=a.process_index, world=a.num_processes,
            skip=may_skip(task, self.options.skip_broken), limit=limit, progress=self._looking(split, len(views)),
            bfloat16=weights == "bf16",
        )  # fmt: skip

    def calibrate(self, task: Task, model: nn.Module, views: Sequence[View]) -> None:
        """Measure the token norm that the `norm` resize needs, on the first training pictures."""
        if not any(v.resize == "norm" for v in views):
            return
        encoder: Any = getattr(model, "backbone", None)
        if not hasattr(encoder, "calibrate"):
            raise TaskError("resize method 'norm' needs a backbone that can be calibrated")
        model.eval()
        encoder.calibrate(next(iter(eval_batches(task, "train", 64))).to(self.accelerator.device).images)

    def _progress(self) -> Callable[[int, int, float, dict[str, float]], None]:
        last = time.perf_counter()
        # the first steps compile, read and embed what the later ones only take up
        told: deque[tuple[float, int]] = deque(maxlen=6)

        def show(step: int, steps: int, rate: float, values: dict[str, float]) -> None:
            nonlocal last
            if self.trackers:
                self.trackers.training(step, steps, {**values, "images_per_second": rate})
            now = time.perf_counter()
            if now - last < self.lines.every and step < steps:
                return
            last = now
            if told and now > told[0][0]:
                rate = (step - told[0][1]) * self._batch / (now - told[0][0])
            told.append((now, step))
            left = (steps - step) * self._batch / rate if rate else 0.0
            scalars = " ".join(f"{k} {v:.3f}" for k, v in values.items())
            self.lines.progress(f"step {step}/{steps} {scalars} {rate:.0f} img/s {duration(left)} left")

        return show

    def _looking(self, split: str, views: int) -> Callable[[int, int, float], None]:
        last = time.perf_counter()

        def show(done: int, total: int, rate: float) -> None:
            nonlocal last
            if time.perf_counter() - last >= self.lines.every:
                last = time.perf_counter()
                left = duration((total - done) / rate)
                told = f"{split}: {done}/{total} images under {views} views, {rate:.0f} img/s, {left} left"
                self.lines.progress(told)

        return show

    def _path(self, name: str) -> Any:
        return self.folder / name

    def _read(self, name: str) -> Any:
        """What the main process finds there; a torn file is as none."""
        with failing_together():
            content = None
            with contextlib.suppress(FileNotFoundError, ValueError):
                content = json.loads(self._path(name).read_text(encoding="utf-8"))
        return of_main(content)

    def _write(self, name: str, value: Any) -> None:
        text = json.dumps(value)
        with failing_together():
            if self.accelerator.is_main_process:
                write_atomically(self._path(name), lambda partial: partial.write_text(text, encoding="utf-8"))


def _own_grid(model: nn.Module, task: Task) -> Grid:
    """The grid nearest to the one that the backbone was made for, of those that divide the task's images."""
    native = getattr(getattr(model, "backbone", None), "native_grid", (1, 1))[0]
    side = min(valid_grids(task.card.image_size), key=lambda g: (abs(g - native), g))
    return side, side


def _notes(training: Training) -> dict[str, Any]:
    """What a row keeps of a training run: its end, its time, and some forty points of its loss."""
    every = max(1, len(training.losses) // 40)
    return {
        "steps": training.steps, "seconds": round(training.seconds, 2), "images_per_second": round(training.rate, 2),
        "resumed_at": training.resumed_at, "last": {k: round(v, 6) for k, v in training.values.items()},
        "notes": training.notes, "skipped": training.skipped,
        "loss_every": every, "losses": [round(v, 6) for v in training.losses[::every]],
    } | ({"compiled": True} if training.compiled else {}) | (
        {"moved": training.moved} if training.moved else {})  # fmt: skip
