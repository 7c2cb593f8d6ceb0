"""Coarse-to-fine training against training at one grid, at equal MACs (FlexiViT's faster pre-training).

python -m benchmarks.studies.acceleration --data DATA/pretrain --out results/runs/studies/acceleration
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backbones import FlexiBackbone, build_backbone
from backbones.cost import macs
from backbones.grids import GridSchedule, parse_schedule
from benchmarks.cost.macs import FORWARD_AND_BACKWARD
from benchmarks.experiments.pretrain import accuracy, train
from benchmarks.experiments.pretrain_data import load_tiny_imagenet
from benchmarks.studies.pictures import subset
from benchmarks.studies.settings import study_main

ARMS = ("fixed", "curriculum")


@dataclass(frozen=True)
class Settings:
    """`images`: what the fixed arm sees; the curriculum sees as many as cost the same. `arm` empty: both in turn."""

    backbone: str = "flexivit_nano"
    target: int = 10
    curriculum: list[int] = field(default_factory=lambda: [4, 6, 10])
    images: int = 9600
    batch: int = 32
    lr: float = 1.5e-3
    decay: float = 0.05
    warmup: int = 30
    seed: int = 0
    points: int = 5
    curve_pictures: int = 1000
    test_pictures: int = 5000
    arm: str = ""


def cumulative_macs(schedule: GridSchedule, total: int, batch: int, encoder: FlexiBackbone) -> list[int]:
    """MACs of training (forward and backward) spent after each of `total` steps."""
    cost = {g: FORWARD_AND_BACKWARD * batch * macs(encoder, g) for g in schedule.grids}
    spent, sums = 0, []
    for step in range(1, total + 1):
        spent += cost[schedule.grid(step, total)]
        sums.append(spent)
    return sums


def steps_for_budget(schedule: GridSchedule, budget: int, batch: int, encoder: FlexiBackbone) -> int:
    """Most steps whose whole schedule costs at most `budget` MACs. Raises ValueError where one step costs more.

    Example: a fixed schedule's own cost gives its own number of steps back.
    """
    cheapest = FORWARD_AND_BACKWARD * batch * min(macs(encoder, g) for g in schedule.grids)
    low, high = 0, budget // cheapest
    while low < high:
        middle = (low + high + 1) // 2
        if cumulative_macs(schedule, middle, batch, encoder)[-1] <= budget:
            low = middle
        else:
            high = middle - 1
    if low < 1:
        raise ValueError(f"a budget of {budget} MACs is less than one step")
    return low


def _read_curve(path: Path) -> list[dict[str, Any]]:
    """Points by step; a killed run may have written one twice."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    points = {p["step"]: p for p in map(json.loads, lines)}
    return [points[step] for step in sorted(points)]


def train_arm(arm: str, settings: Settings, data: Path, out: Path, device: str) -> list[dict[str, Any]]:
    """Train one arm from its last checkpoint, a point of the curve at each checkpoint. Returns the curve."""
    encoder = build_backbone(settings.backbone, pretrained=False)
    fixed = parse_schedule(settings.target)
    steps = settings.images // settings.batch
    if arm == "fixed":
        schedule = str(settings.target)
    else:
        if settings.curriculum[-1] != settings.target:
            raise ValueError(f"curriculum {settings.curriculum} must end at the target grid {settings.target}")
        schedule = "curriculum-cost:" + ",".join(map(str, settings.curriculum))
        budget = cumulative_macs(fixed, steps, settings.batch, encoder)[-1]
        steps = steps_for_budget(parse_schedule(schedule), budget, settings.batch, encoder)
    spent = cumulative_macs(parse_schedule(schedule), steps, settings.batch, encoder)
    marks = {next(i for i, s in enumerate(spent, 1) if s >= spent[-1] * k / settings.points)
             for k in range(1, settings.points + 1)}  # fmt: skip
    folder = out / arm
    folder.mkdir(parents=True, exist_ok=True)
    curve, clock = folder / "curve.jsonl", time.process_time if device == "cpu" else time.perf_counter
    test = load_tiny_imagenet(data, "val")
    before = (_read_curve(curve) or [{"seconds": 0.0}])[-1]["seconds"]
    started, scoring = clock(), 0.0

    def score(model: FlexiBackbone, step: int) -> None:
        nonlocal scoring
        if step not in marks:
            return
        seconds, begun = before + clock() - started - scoring, clock()
        pictures = subset(test, settings.test_pictures if step == steps else settings.curve_pictures)
        top1 = accuracy(model, pictures, [settings.target])[str(settings.target)]
        point = {"step": step, "images": step * settings.batch, "macs": spent[step - 1], "seconds": round(seconds, 1)}
        with curve.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**point, "top1": top1, "pictures": len(pictures.labels)}) + "\n")
        scoring += clock() - begun

    options = argparse.Namespace(
        seed=settings.seed, decay=settings.decay, lr=settings.lr, warmup=settings.warmup, batch=settings.batch,
        images=steps * settings.batch, schedule=schedule, out=folder, device=device, every=max(1, steps // 20),
    )  # fmt: skip
    train(settings.backbone, load_tiny_imagenet(data, "train"), options, score)
    return _read_curve(curve)


def table(curves: dict[str, list[dict[str, Any]]], target: int) -> str:
    """Markdown: a row a point of each arm."""
    lines = [f"| arm | images | training MACs | device-hours | top-1 at grid {target} | std. error | pictures |"]
    lines.append("| --- |" + " ---: |" * 6)
    for arm, points in curves.items():
        for p in points:
            error = (p["top1"] * (1 - p["top1"]) / p["pictures"]) ** 0.5
            lines.append(
                f"| {arm} | {p['images']:,} | {p['macs']:.3g} | {p['seconds'] / 3600:.3f} "
                f"| {100 * p['top1']:.1f} % | {100 * error:.1f} | {p['pictures']:,} |"
            )
    return "\n".join(lines) + "\n"


def plot(curves: dict[str, list[dict[str, Any]]], target: int, path: Path) -> None:
    """Top-1 at the target grid against MACs and against device-hours."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, both = plt.subplots(1, 2, figsize=(8.4, 3.6), sharey=True)
    axes_of = (("macs", 1e12, "training cost, TMACs"), ("seconds", 3600, "device-hours"))
    for axes, (key, unit, label) in zip(both, axes_of, strict=True):
        for (arm, points), colour in zip(curves.items(), ("#c8553d", "#1b6ca8"), strict=True):
            errors = [100 * (p["top1"] * (1 - p["top1"]) / p["pictures"]) ** 0.5 for p in points]
            values = [100 * p["top1"] for p in points]
            axes.errorbar([p[key] / unit for p in points], values, errors, marker="o", capsize=2, color=colour,
                          label=arm)  # fmt: skip
        axes.set(xlabel=label, ylim=0, xlim=0)
        axes.spines[["top", "right"]].set_visible(False)
    both[0].set_ylabel(f"top-1 at {target}x{target}, %")
    both[0].legend(frameon=False, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def run(settings: Settings, data: Path, out: Path, device: str) -> dict[str, Any]:
    """Train what is missing of both arms (or of one), then the table and the plot of what there is."""
    for arm in [settings.arm] if settings.arm else ARMS:
        if arm not in ARMS:
            raise ValueError(f"no arm {arm!r}; there are: {', '.join(ARMS)}")
        train_arm(arm, settings, data, out, device)
    curves = {arm: _read_curve(out / arm / "curve.jsonl") for arm in ARMS}
    (out / "table.md").write_text(table(curves, settings.target), encoding="utf-8")
    plot(curves, settings.target, out / "acceleration.png")
    return {"curves": curves}


if __name__ == "__main__":
    study_main("acceleration")
