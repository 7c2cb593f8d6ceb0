"""Are the names read? AP50 and AR of a detection run by its own category names and under exchanged ones.

    python -m benchmarks.experiments.exchanged_names results/runs/mini_lit_detection --data-root DATA --out names.md

Only the names are exchanged: boxes and scores stay, as the run's samples hold them. Prints a table in markdown.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cli.errors import run_script
from benchmarks.store import Row, Store
from benchmarks.store.environment import environment
from tasks import TaskError, build_task
from tasks.detection.labels.annotations import Truth
from tasks.detection.scoring.average_precision import box_scores
from tasks.detection.scoring.matching import judge
from tasks.detection.scoring.results import Detections

METRICS = ("AP50", "AR")


def derangement(count: int, random: np.random.Generator) -> np.ndarray:
    """A permutation of `count` places, 2 at least, that leaves none where it was; all such are as likely.

    Example: `derangement(2, np.random.default_rng(0))` is [1, 0]
    """
    while True:
        order = random.permutation(count)
        if (order != np.arange(count)).all():
            return order


def renamed(found: Detections, truth: Truth, names: np.ndarray) -> Detections:
    """The same boxes and scores; what was found as category k (a place) is said to be category `names[k]`."""
    place = np.searchsorted(truth.category_ids, found.category_id)
    return dataclasses.replace(found, category_id=truth.category_ids[names[place]])


def numbers(found: Detections, truth: Truth) -> dict[str, float]:
    """AP50 and AR, as fractions; 0 where there is nothing to find."""
    scores = box_scores(judge(found, truth), truth)
    return {name: scores[name] or 0.0 for name in METRICS}


def exchanged(found: Detections, truth: Truth, draws: int = 20, seed: int = 0) -> dict[str, tuple[float, list[float]]]:
    """Each metric by the own names, and under `draws` derangements of all categories, the same for every call.

    Raises: TaskError for fewer than two categories.

    Example: `own, others = exchanged(found, truth)["AP50"]`
    """
    count, random = len(truth.category_ids), np.random.default_rng(seed)
    if count < 2:
        raise TaskError(f"{count} category: there are no names to exchange")
    own = numbers(found, truth)
    others = [numbers(renamed(found, truth, derangement(count, random)), truth) for _ in range(draws)]
    return {name: (own[name], [o[name] for o in others]) for name in METRICS}


def table(rows: Sequence[tuple[Row, dict[str, tuple[float, list[float]]]]]) -> list[str]:
    """Lines of markdown, in %: own names, mean and range of the exchanged ones, how many times their mean.

    Example: `print("\\n".join(table([(row, exchanged(found, truth))])))`
    """
    head = ["trained at", "grid", *(f"{m} {what}" for m in METRICS for what in ("own", "exchanged (range)", "ratio"))]
    lines = ["| " + " | ".join(["backbone", *head]) + " |", "| --- | --- |" + " ---: |" * (len(head) - 1)]
    for row, found in rows:
        cells = [row.backbone, str(row.train_grid), str(row.eval_grid)]
        for own, others in (found[m] for m in METRICS):
            mean = float(np.mean(others))
            cells += [f"{100 * own:.2f}", f"{100 * mean:.2f} ({100 * min(others):.2f}-{100 * max(others):.2f})"]
            cells.append(f"{own / mean:.1f}" if mean else "-")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def of_run(
    folder: Path, data_root: Path, split: str, draws: int, backbone: str = "", train_grid: str = ""
) -> list[str]:
    """The table of all detection rows of a run on a split, the newest row of each view.

    Raises: TaskError where there are none, where their samples are gone, or where the data are not those of the rows.
    """
    store, newest, truths = Store(folder), {}, {}
    for row in store.rows():
        asked = (not backbone or row.backbone == backbone) and (not train_grid or str(row.train_grid) == train_grid)
        if (row.task, row.status, row.split) == ("detection", "ok", split) and not row.limit and asked:
            newest[row.row_key] = row
    if not newest:
        raise TaskError(f"{folder}: no detection row on split {split!r} that was asked for")
    rows: list[tuple[Row, Any]] = []
    for row in newest.values():
        samples = store.samples(row)
        if samples is None:
            raise TaskError(f"{folder}: the samples of {row.label!r} at grid {row.eval_grid} are gone; run it again")
        task = build_task("detection", data_root, dict(row.options), row.seed or 0)
        known = row.data_identity.get(split)
        if known not in truths:
            if known != task.fingerprint(split):
                raise TaskError(f"{data_root}: split {split!r} is not that of {row.label!r}")
            truths[known] = task.truth(split)
        meter = task.meter(split)
        records = {name: torch.from_numpy(samples[name]) for name in ("ids", "score", "category", "box")}
        rows.append((row, exchanged(meter.detections(records), truths[known], draws)))
    return table(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.experiments.exchanged_names", description=__doc__.splitlines()[0]
    )
    parser.add_argument("run", type=Path, help="folder of a run with detection rows and their samples")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--split", default="val")
    parser.add_argument("--draws", type=int, default=20, help="derangements of the names")
    parser.add_argument("--backbone", default="", help="this one alone")
    parser.add_argument("--train-grid", default="", help="trained so alone, as in the rows: 8, random:8,10,12,16")
    parser.add_argument("--out", type=Path, help="a markdown file to write as well")
    options = parser.parse_args()
    try:
        lines = of_run(
            options.run, options.data_root, options.split, options.draws, options.backbone, options.train_grid
        )
    except TaskError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    env = environment()
    told = (
        f"`python -m benchmarks.experiments.exchanged_names {' '.join(sys.argv[1:])}`, revision {env['revision']}, "
        f"{datetime.date.today()}, {env['cpus']} cores of {platform.machine()}, OMP_NUM_THREADS="
        f"{os.environ.get('OMP_NUM_THREADS', 'not set')}, Python {platform.python_version()}, numpy {np.__version__}."
    )
    what = (
        f"Split {options.split}; AP50 and AR in %; mean and range of {options.draws} derangements of all category "
        "names. Boxes and scores are the run's; only the names under which they are scored are exchanged."
    )
    text = "\n".join(["# By the own names, and under exchanged ones", "", told, "", what, "", *lines, ""])
    print(text)
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run_script(main)
