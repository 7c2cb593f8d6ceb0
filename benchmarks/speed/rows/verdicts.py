"""Time and peak memory of all verdicts of a folder; sums by group against 0-1 weights and against a bootstrap.

Run: `python -m benchmarks.speed.rows.verdicts [--rows 500] [--samples 50000]`; prints tables in markdown. The
folder is made up in a temporary place. The report is read in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.cli.errors import run_script
from benchmarks.report.statistics.jackknife import deal_groups, replicates_of_sums, replicates_of_weights
from benchmarks.store import Row, Store
from benchmarks.store.environment import environment
from tasks.contract.task import sums_of_mean

GRIDS = (4, 5, 6, 8, 10, 12, 15, 16, 20, 24)
SEEDS = 5
BOOTSTRAP = 1_000  # draws


def make_folder(folder: Path, rows: int, samples: int) -> None:
    """Rows of classification: flexible and fixed backbones at ten grids, five seeds each."""
    store, rng = Store(folder), np.random.default_rng(0)
    hard = rng.random(samples)
    ids, label = np.arange(samples), np.zeros(samples, np.int64)
    for number in range(rows):
        model, place = divmod(number, len(GRIDS) * SEEDS)
        grid, seed = GRIDS[place // SEEDS], place % SEEDS
        right = hard + rng.normal(0, 0.2, samples) + rng.normal(0, 0.01) < 0.5 + 0.01 * grid
        ranked = np.where(right, 0, 1)[:, None].astype(np.int32)
        key = f"{number:016x}"
        kept = store.save_samples(key, {"ids": ids, "label": label, "ranked": ranked})
        flexible = model % 2 == 0
        store.append([Row(
            row_key=key, suite="made up", task="classification", protocol="finetune-v1", options={"data": "imagenet"},
            backbone=f"{'flexible' if flexible else 'fixed'}_{model}", flexible=flexible, train_grid=8, eval_grid=grid,
            seed=seed, split="test", metric="top1", higher_is_better=True, metrics={"top1": float(right.mean())},
            cost={"macs": 10**7 * grid**2}, samples=kept,
        )])  # fmt: skip


def read(folder: Path) -> dict[str, float]:
    """Seconds of processor time and peak memory in MB of everything from rows to verdicts, in this process."""
    from benchmarks.report.build import read_report

    start = time.process_time()
    report = read_report([Store(folder)])
    return {
        "seconds": time.process_time() - start,
        "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,  # Linux: kB
        "verdicts": sum(len(c.comparison.verdicts) for a in report.answers for c in a.comparisons),
        "choices": sum(len(a.choices) for a in report.answers),
    }


def bootstrapped(right: np.ndarray, draws: int = BOOTSTRAP) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.array([right[rng.integers(len(right), size=len(right))].mean() for _ in range(draws)])


def ways(samples: int) -> dict[str, float]:
    """Best of three, in alternation: processor time of one row."""
    right = (np.random.default_rng(0).random(samples) < 0.6).astype(float)
    groups, terms = deal_groups(samples), sums_of_mean(right)

    def by_weights(weights: np.ndarray) -> np.ndarray:
        return terms[1](weights @ terms[0])

    calls = {
        "jackknife by sums": lambda: replicates_of_sums(*terms, groups),
        "jackknife by weights in blocks": lambda: replicates_of_weights(by_weights, groups),
        f"bootstrap, {BOOTSTRAP:,} draws": lambda: bootstrapped(right),
    }
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(3):
        for name, call in calls.items():
            start = time.process_time()
            call()
            best[name] = min(best[name], time.process_time() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.speed.rows.verdicts", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        print(json.dumps(read(options.read)))
        return
    with tempfile.TemporaryDirectory() as folder:
        make_folder(Path(folder), options.rows, options.samples)
        own = [sys.executable, "-m", "benchmarks.speed.rows.verdicts", "--read", folder]
        found = json.loads(subprocess.run(own, check=True, capture_output=True, text=True, encoding="utf-8").stdout)
    env = environment()
    print(
        f"`python -m benchmarks.speed.rows.verdicts`, revision {env['revision']}, {env['cpus']} cores of "
        f"{platform.machine()}, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}, Python "
        f"{platform.python_version()}, numpy {np.__version__}, {datetime.date.today()}.\n"
    )
    print("| rows | samples | choices | verdicts | processor time, s | peak memory, MB |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    print(
        f"| {options.rows} | {options.samples:,} | {found['choices']} | {found['verdicts']} | {found['seconds']:.0f} | "
        f"{found['mb']:.0f} |\n"
    )
    once = ways(options.samples)
    first = next(iter(once.values()))
    print("| one row | processor time, s | times the first |\n| --- | ---: | ---: |")
    for name, seconds in once.items():
        print(f"| {name} | {seconds:.4f} | {seconds / first:.0f} |")


if __name__ == "__main__":
    run_script(main)
