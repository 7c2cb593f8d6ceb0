"""How often the report's 95 % intervals hold the truth, in worlds whose truth is known.

Run: `python -m benchmarks.experiments.coverage [--worlds 400]`; prints two tables in markdown: the intervals of
differences, and what other floors of the variance over samples would cover where units are few.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import functools
import os
import platform
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.cli.errors import run_script
from benchmarks.experiments.made_worlds import World, average_precision, miou, recall, top1
from benchmarks.report.statistics.variance import Estimate, estimate
from benchmarks.store.environment import environment

Make = Callable[[np.random.Generator, int, int, float], World]

METRICS: dict[str, Make] = {
    "top-1": top1, "mIoU": miou, "R@1, five captions a picture": recall, "AP": average_precision,
}  # fmt: skip
FRAMES = 10
FEW: dict[tuple[str, str], tuple[Make, int]] = {  # units
    ("mIoU", f"blocks of {FRAMES} frames"): (functools.partial(miou, frames=FRAMES), 25),
    ("mIoU", "pictures"): (miou, 60),
    ("R@1", "pictures of five captions"): (recall, 25),
    ("R@1 of 0.99 and 0.985", "pictures of five captions"): (functools.partial(recall, truths=(0.99, 0.985)), 60),
    ("top-1", "pictures"): (top1, 25),
    ("top-1 of 0.99 and 0.985", "pictures"): (functools.partial(top1, truths=(0.99, 0.985)), 60),
    ("AP", "pictures"): (average_precision, 60),
}
FLOORS = ("none", "by units", "of the report")


def covered(found: Sequence[Estimate], truth: float | None) -> tuple[float, float, float]:
    """Coverage of the truth (None: of the mean of all estimates), its standard error, the median half width."""
    truth = float(np.mean([f.value for f in found])) if truth is None else truth
    held = float(np.mean([low <= truth <= high for low, high in (f.interval() for f in found)]))
    return held, (held * (1 - held) / len(found)) ** 0.5, float(np.median([f.half_width() for f in found]))


def with_floor(found: Estimate, floor: str) -> Estimate:
    """An estimate without a floor under one for sets of so many units, whatever the units are."""
    least = 2 / (found.parts.units + 2) ** 2 if floor == "by units" else 0.0
    return dataclasses.replace(found, parts=dataclasses.replace(found.parts, samples=max(found.parts.samples, least)))


def numbers(worlds: Sequence[World], single: bool, floor: str) -> tuple[float, float, float]:
    """`covered` of the first model's metric, or of the difference of both, under a floor of `FLOORS`.

    Example: `numbers([top1(rng, 60, 3, 0.01) for _ in range(400)], single=False, floor="none")`
    """
    found, truths = [], [w.truths for w in worlds if w.truths is not None]
    for world in worlds:
        arms = world.arms[:1] if single else world.arms
        own = estimate(lambda *metrics: metrics[0][0] - sum(m[0] for m in metrics[1:]), arms, floor == FLOORS[-1])
        found.append(own if floor == FLOORS[-1] else with_floor(own, floor))
    truth = (truths[0][0] if single else truths[0][0] - truths[0][1]) if truths else None
    return covered(found, truth)


def made(make: Make, samples: int, seeds: int, sd: float, worlds: int) -> list[World]:
    rng = np.random.default_rng(samples + seeds)
    return [make(rng, samples, seeds, sd) for _ in range(worlds)]


def shown(held: float, error: float) -> str:
    return f"{100 * held:.1f} ± {100 * error:.1f}"


def print_row(cells: Sequence[object]) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def print_coverage(worlds: int, ap_worlds: int) -> None:
    print("| difference of | samples | seeds | sd between runs, points | worlds | coverage, % | half width, points |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, make in METRICS.items():
        slow = make is average_precision
        number = ap_worlds if slow else worlds
        for samples in (60, 200) if slow else (60, 200, 1000):
            for seeds, sd in ((3, 0.01), (3, 0.03)) if slow else ((3, 0.01), (3, 0.03), (5, 0.01)):
                held, error, half = numbers(made(make, samples, seeds, sd, number), False, FLOORS[-1])
                print_row(
                    (name, f"{samples:,}", seeds, f"{100 * sd:g}", number, shown(held, error), f"{100 * half:.1f}")
                )


def print_floors(worlds: int, ap_worlds: int) -> None:
    """Three seeds, one point between runs."""
    print(f"| metric | units | number | worlds | {' | '.join(f'floor {f}: %, ± points' for f in FLOORS)} |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: |")
    for (name, noun), (make, units) in FEW.items():
        number = ap_worlds if make is average_precision else worlds
        worlds_made = made(make, units, 3, 0.01, number)
        for single in (True, False):
            cells = []
            for floor in FLOORS:
                held, error, half = numbers(worlds_made, single, floor)
                cells.append(f"{shown(held, error)}, {100 * half:.1f}")
            print_row((name, f"{units} {noun}", "a model" if single else "difference", number, *cells))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.experiments.coverage", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--worlds", type=int, default=400)
    parser.add_argument("--ap-worlds", type=int, default=400)
    options = parser.parse_args()
    env = environment()
    print(
        f"`python -m benchmarks.experiments.coverage --worlds {options.worlds} --ap-worlds {options.ap_worlds}`, "
        f"revision {env['revision']}, {env['cpus']} cores of {platform.machine()}, OMP_NUM_THREADS="
        f"{os.environ.get('OMP_NUM_THREADS', 'not set')}, Python {platform.python_version()}, numpy {np.__version__}, "
        f"{datetime.date.today()}. Intervals at 95 %; ± is a standard error over the worlds.\n"
    )
    print_coverage(options.worlds, options.ap_worlds)
    print("\n## Floors of the variance over samples, where units are few\n")
    print_floors(options.worlds, options.ap_worlds)


if __name__ == "__main__":
    run_script(main)
