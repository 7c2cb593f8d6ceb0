"""The nano trainings within a stretch of time: a search of the recipe, then as many epochs as the rest allows."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from backbones.grids import parse_schedule
from benchmarks.engine.runner import Runner, RunOptions
from benchmarks.engine.suite import Cell, Suite, cell_task, changed, load_suite
from benchmarks.engine.training.loop import finetune
from benchmarks.store import Row, Store, write_atomically
from benchmarks.use.trained import export_backbone

EPOCHS = (300, 250, 200, 150, 125, 100, 80, 60, 40, 25, 10, 5, 2, 1)
PICTURES = 40_000
BESIDE = 8.0  # seconds of a training that are no steps: reading, evaluation, weights as a file
MARGIN = 1.1
PROBED = 100  # steps that tell a training's rate


@dataclasses.dataclass
class Clock:
    """What is left of `seconds`."""

    seconds: float
    started: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.started)


def search(out: Path, data: Path, clock: Clock, options: RunOptions, settings: Sequence[str], say: Callable) -> Row:
    """The best row's settings on held-out training pictures, and a table; stops when time ends.

    Example: `search(Path("out"), Path("data"), Clock(100), RunOptions(), [], print)["lr"]`
    """
    suite, store = load_suite("nano_search", data, settings), Store(out / "nano_search")
    runner, longest = Runner(suite, store, data, options, say), 0.0
    for number, cell in enumerate(suite.cells, 1):
        begun = time.monotonic()
        if longest * MARGIN > clock.left:
            say(f"search: time for {number - 1} of {len(suite.cells)} trials")
            break
        _only(runner, cell).run()
        longest = max(longest, time.monotonic() - begun)
        trials(store, out)
    rows = trials(store, out)
    if not rows:
        return {}
    best = rows[0]
    write_atomically(out / "choice.json", lambda p: p.write_text(json.dumps(best, indent=1) + "\n", encoding="utf-8"))
    say(f"search: chosen {best}")
    return best


def trials(store: Store, out: Path) -> list[dict[str, Any]]:
    """Settings of each trial with its mean top-1, the best first; written as a table."""
    cells: dict[str, list[Row]] = {}
    for row in store.rows():
        if row["status"] == "ok":
            cells.setdefault(row["cell_key"], []).append(row)
    found = []
    for rows in cells.values():
        recipe, options = rows[0]["recipe"], rows[0]["options"]
        top1, told = {str(r["eval_grid"]): r["metrics"]["top1"] for r in rows}, rows[0]["training"]
        found.append({
            "optimizer": recipe["optimizer"], "lr": recipe["lr"], "weight_decay": round(recipe["weight_decay"], 6),
            "mixup": recipe["mixup"], "smallest_crop": options.get("smallest_crop"), "epochs": options.get("epochs"),
            "top1": top1, "mean": sum(top1.values()) / len(top1),
            "last_loss": told["losses"][-1], "pictures_a_second": told["images_per_second"],
        })  # fmt: skip
    found.sort(key=lambda f: -f["mean"])
    if found:
        grids = list(found[0]["top1"])
        names = ["optimizer", "lr", "weight_decay", "mixup", "smallest_crop", "epochs"]
        lines = ["| " + " | ".join([*names, *(f"grid {g}" for g in grids), "mean", "last loss", "pictures/s"]) + " |"]
        lines.append("| " + " | ".join(["---:"] * (len(names) + len(grids) + 3)) + " |")
        for f in found:
            scores = [f"{100 * f['top1'].get(g, float('nan')):.1f}" for g in grids]
            cells_ = [*(str(f[n]) for n in names), *scores, f"{100 * f['mean']:.2f}", f"{f['last_loss']:.3f}"]
            lines.append("| " + " | ".join([*cells_, f"{f['pictures_a_second']:.0f}"]) + " |")
        write_atomically(out / "nano_search.md", lambda p: p.write_text("\n".join(lines) + "\n", encoding="utf-8"))
    return found


def chosen_settings(best: dict[str, Any]) -> list[str]:
    """The choice as `--set` of the suite nano; the distilled one starts from a trained model, at half the rate."""
    if not best:
        return []
    found = []
    for task, factor in ((0, 1.0), (1, 0.5)):
        found += [
            f"tasks.{task}.recipe.optimizer={best['optimizer']}", f"tasks.{task}.recipe.lr={best['lr'] * factor}",
            f"tasks.{task}.recipe.weight_decay={best['weight_decay']}", f"tasks.{task}.recipe.mixup={best['mixup']}",
        ]  # fmt: skip
        if best["smallest_crop"] is not None:
            found.append(f"tasks.{task}.options.smallest_crop={best['smallest_crop']}")
    return found


def train(
    out: Path, data: Path, clock: Clock, options: RunOptions, settings: Sequence[str], epochs: int, say: Callable
) -> None:
    """The suite nano with as many epochs as time allows (`epochs`: so many); weights are written after each training.

    Example: `train(Path("out"), Path("data"), Clock(400), RunOptions(), [], 100, print)`
    """
    store = Store(out / "nano")
    suite = load_suite("nano", data, settings)
    runner = Runner(suite, store, data, options, say)
    if not epochs:
        epochs = affordable(runner, clock, say)
    teacher = out / "weights" / "vit_nano_g15.safetensors"
    settings = [*settings, f"options.epochs={epochs}", f"tasks.1.options.teacher={teacher}"]
    # until the teacher is there, the suite cannot name it
    cells = [c for c in load_suite("nano", data, settings[:-1]).cells if c.options["preset"] == "nano"]
    for cell in cells:
        _trained(runner, cell, store, out, data, say)
    distilled = [c for c in load_suite("nano", data, settings).cells if c.options["preset"] != "nano"]
    for cell in distilled if teacher.exists() else ():
        _trained(runner, cell, store, out, data, say)


def affordable(runner: Runner, clock: Clock, say: Callable) -> int:
    """Epochs for which the time is enough, by the rates of a hundred steps of each training."""
    costs = 0.0
    for cell in runner.suite.cells:
        rate = probed(runner, cell)
        costs += PICTURES / rate
        say(f"rate: {cell.label}: {rate:.0f} pictures/s")
    beside = BESIDE * len(runner.suite.cells)
    found = next((e for e in EPOCHS if (e * costs + beside) * MARGIN < clock.left), EPOCHS[-1])
    say(f"epochs: {found}, of {costs:.1f} s each over all trainings; {clock.left:.0f} s are left")
    return found


def probed(runner: Runner, cell: Cell) -> float:
    """Pictures a second of some steps of a cell's training, the first ones and their preparation included."""
    trainer, task = runner.trainer, cell_task(cell, runner.data_root)
    steps = min(PROBED, task.recipe.steps)
    task.recipe = changed(task.recipe, {"steps": steps, "warmup": min(task.recipe.warmup, steps // 2), "ema": 0.0})
    model = trainer._fresh(cell, task, task.recipe)
    trainer.residents.of(task, task.dataset("train"), runner.accelerator.device, runner.options.workers)
    told = finetune(
        task, model, task.recipe, parse_schedule(cell.train or ""), runner.accelerator, workers=runner.options.workers,
        residents=trainer.residents,
    )  # fmt: skip
    return told.rate


def _trained(runner: Runner, cell: Cell, store: Store, out: Path, data: Path, say: Callable) -> None:
    summary = _only(runner, cell).run()
    if summary.failed or summary.blocked:
        say(f"{cell.label}: {summary.lines()}")
        return
    name = "flexivit_nano_distilled" if cell.options["preset"] != "nano" else cell.backbone
    wanted = {"backbone": cell.backbone, "train_grid": _trained_at(cell), "status": "ok"}
    export_backbone(store.folder, out / "weights" / f"{name}.safetensors", data, wanted)
    table(store, out)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _trained_at(cell: Cell) -> str:
    schedule = parse_schedule(cell.train or "")
    return str(schedule.grids[0][0]) if schedule.kind == "fixed" else cell.train or ""


def table(store: Store, out: Path) -> None:
    """Top-1 of each model at each grid, written as a table."""
    rows = [r for r in store.rows() if r["status"] == "ok"]
    grids = sorted({int(r["eval_grid"]) for r in rows})
    lines = ["| model | trained at | " + " | ".join(map(str, grids)) + " | loss | seconds | pictures/s |"]
    lines.append("| --- | --- |" + " ---: |" * (len(grids) + 3))
    for label in dict.fromkeys(r["label"] for r in rows):
        own = {int(r["eval_grid"]): r for r in rows if r["label"] == label}
        row = next(iter(own.values()))
        told = row["training"]
        scores = " | ".join(f"{100 * own[g]['metrics']['top1']:.1f}" if g in own else "" for g in grids)
        rest = f"{told['losses'][-1]:.3f} | {told['seconds']:.0f} | {told['images_per_second']:.0f}"
        lines.append(f"| {row['backbone']} {row['options']['preset']} | {row['train_grid']} | {scores} | {rest} |")
    write_atomically(out / "nano.md", lambda p: p.write_text("\n".join(lines) + "\n", encoding="utf-8"))


def _only(runner: Runner, cell: Cell) -> Runner:
    """The same runner, whose pictures and programs are warm, for one cell."""
    old = runner.suite
    runner.suite = Suite(old.name, old.description, old.path, [cell], old.imports)
    return runner
