"""How often the report's 95 % intervals of a difference hold the truth, in worlds whose truth is known.

Run: `python -m benchmarks.experiments.coverage [--worlds 400]`; prints a table in markdown. Two backbones are trained
with a few seeds each and measured over one set of samples. Samples are hard for both, for one, or for one run; runs
have their own luck (`sd`, points). The truth is that of endless samples and runs: in closed form for accuracy and
recall, of a large draw for mIoU, and for AP, which depends on the size of a set, the mean over all worlds of that size.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from benchmarks.report.statistics.jackknife import (
    Groups,
    Replicates,
    deal_groups,
    replicates_of_sums,
    replicates_of_weights,
)
from benchmarks.report.statistics.variance import Arm, arm_of, estimate
from benchmarks.store.environment import environment
from tasks.contract.task import sums_of_mean
from tasks.detection.scoring.resampling import resampled_ap
from tasks.segmentation.adapter import mean_iou

SHARED, OWN, RUN = 0.5, 0.25, 0.25  # variances of what makes a sample hard: for all, for a model, for a run
CLASSES, CATEGORIES, KEPT = 6, 4, 12
CAPTIONS = 5


@dataclass(frozen=True)
class World:
    """Two models' arms, and the true difference (None: the mean over worlds)."""

    arms: tuple[Arm, Arm]
    truth: float | None


def hardness(rng: np.random.Generator, shape: tuple[int, ...], seeds: int) -> list[np.ndarray]:
    """Of each of two models [S, *shape]: standard normal, alike in what is hard for all."""
    shared = rng.normal(0, SHARED**0.5, shape)
    own = [rng.normal(0, OWN**0.5, shape) for _ in range(2)]
    return [shared + o + rng.normal(0, RUN**0.5, (seeds, *shape)) for o in own]


def limits(rng: np.random.Generator, truth: float, sd: float, seeds: int) -> np.ndarray:
    """Of each run [S]: below it a sample is right, so that accuracy is `truth` over all runs, `sd` between them."""
    luck = sd / norm.pdf(norm.ppf(truth))
    return norm.ppf(truth) * (1 + luck**2) ** 0.5 + rng.normal(0, luck, seeds)


def arm(seeds: list[Replicates], groups: Groups) -> Arm:
    return arm_of([[one] for one in seeds], groups.units)


def top1(rng: np.random.Generator, samples: int, seeds: int, sd: float) -> World:
    groups, truths, arms = deal_groups(samples), (0.62, 0.60), []
    for hard, truth in zip(hardness(rng, (samples,), seeds), truths, strict=True):
        right = hard < limits(rng, truth, sd, seeds)[:, None]
        arms.append(arm([replicates_of_sums(*sums_of_mean(r.astype(float)), groups) for r in right], groups))
    return World((arms[0], arms[1]), truths[0] - truths[1])


def recall(rng: np.random.Generator, samples: int, seeds: int, sd: float) -> World:
    """R@1 of captions: those of a picture are hard together, and stay together."""
    pictures, truths, arms = samples, (0.42, 0.40), []
    groups = deal_groups(pictures * CAPTIONS, np.repeat(np.arange(pictures), CAPTIONS))
    whole = hardness(rng, (pictures, 1), seeds)
    parts = hardness(rng, (pictures, CAPTIONS), seeds)
    for picture, caption, truth in zip(whole, parts, truths, strict=True):
        hard = ((picture + caption) / 2**0.5).reshape(seeds, -1)
        right = hard < limits(rng, truth, sd, seeds)[:, None]
        arms.append(arm([replicates_of_sums(*sums_of_mean(r.astype(float)), groups) for r in right], groups))
    return World((arms[0], arms[1]), truths[0] - truths[1])


def counts_of(rng: np.random.Generator, labelled: np.ndarray, hard: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Counts [S, N, 3, C]: of each image's labelled areas a share is right, the rest is given to the next class."""
    share = norm.cdf(level[:, None, None] - 0.6 * hard[..., None] + 0.15 * np.arange(CLASSES))
    right = labelled * share
    predicted = right + np.roll(labelled - right, 1, axis=-1)
    return np.stack([right, predicted, np.broadcast_to(labelled, right.shape)], axis=2)


def areas(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Labelled areas [N, C]; a class is in four of ten images."""
    return rng.gamma(1.0, 100.0, (samples, CLASSES)) * (rng.random((samples, CLASSES)) < 0.4)


def miou(rng: np.random.Generator, samples: int, seeds: int, sd: float) -> World:
    groups, labelled, arms = deal_groups(samples), areas(rng, samples), []
    for hard, level in zip(hardness(rng, (samples,), seeds), MIOU_LEVELS, strict=True):
        counts = counts_of(rng, labelled, hard, level + rng.normal(0, 2.5 * sd, seeds))
        arms.append(arm([replicates_of_sums(c, mean_iou, groups) for c in counts], groups))
    return World((arms[0], arms[1]), true_miou(MIOU_LEVELS[0], sd) - true_miou(MIOU_LEVELS[1], sd))


MIOU_LEVELS = (0.65, 0.60)
_TRUE: dict[tuple[float, float], float] = {}


def true_miou(level: float, sd: float, samples: int = 40_000, runs: int = 41) -> float:
    """Of endless images, by the quantiles of a run's luck."""
    if (level, sd) not in _TRUE:
        rng = np.random.default_rng(12345)
        labelled, hard = areas(rng, samples), rng.normal(0, 1, (1, samples))
        luck = 2.5 * sd * norm.ppf((np.arange(runs) + 0.5) / runs)
        found = [mean_iou(counts_of(rng, labelled, hard, np.array([level + u]))[0].sum(0)[None])[0] for u in luck]
        _TRUE[level, sd] = float(np.mean(found))
    return _TRUE[level, sd]


def average_precision(rng: np.random.Generator, samples: int, seeds: int, sd: float) -> World:
    """Every image has boxes that are found with a score, and false ones."""
    groups, arms = deal_groups(samples), []
    there = rng.integers(0, CATEGORIES, (samples, KEPT // 3)).astype(np.int16)
    there[rng.random(there.shape) < 0.4] = -1
    noise = rng.integers(0, CATEGORIES, (samples, KEPT - there.shape[1]))
    for hard, level in zip(hardness(rng, there.shape, seeds), (0.2, 0.1), strict=True):
        runs = []
        for one, luck in zip(hard, rng.normal(0, 2.5 * sd, seeds), strict=True):
            overlap = np.clip((10 * norm.cdf(level + luck - one)).astype(int), 0, 10)
            hit = np.zeros((samples, KEPT), np.uint16)
            miss = np.full((samples, KEPT), 1023, np.uint16)
            hit[:, : there.shape[1]] = np.where(there >= 0, (1 << overlap) - 1, 0)
            miss[:, : there.shape[1]] = np.where(there >= 0, 1023 - hit[:, : there.shape[1]], 0)
            category = np.concatenate([np.maximum(there, 0), noise], axis=1)
            score = np.concatenate([1 - 0.5 * one, rng.normal(0, 1, noise.shape)], axis=1)
            values = (score, category, hit, miss, there)
            runs.append(replicates_of_weights(lambda weights, own=values: resampled_ap(*own, weights), groups))
        arms.append(arm(runs, groups))
    return World((arms[0], arms[1]), None)


METRICS: dict[str, Callable[[np.random.Generator, int, int, float], World]] = {
    "top-1": top1, "mIoU": miou, "R@1, five captions a picture": recall, "AP, difference": average_precision,
}  # fmt: skip


def measure(name: str, samples: int, seeds: int, sd: float, worlds: int) -> tuple[float, float, float]:
    """Coverage, its standard error, and the median half width of the intervals.

    Example: `measure("top-1", samples=1000, seeds=3, sd=0.01, worlds=400)[0]`
    """
    rng, found, truths = np.random.default_rng(samples + seeds), [], []
    for _ in range(worlds):
        world = METRICS[name](rng, samples, seeds, sd)
        found.append(estimate(lambda a, b: a[0] - b[0], world.arms, floor=True))
        truths.append(world.truth)
    middle = float(np.mean([f.value for f in found]))
    held = [
        low <= (middle if t is None else t) <= high
        for (low, high), t in zip((f.interval() for f in found), truths, strict=True)
    ]
    share = float(np.mean(held))
    return share, (share * (1 - share) / worlds) ** 0.5, float(np.median([f.half_width() for f in found]))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.experiments.coverage", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--worlds", type=int, default=400)
    parser.add_argument("--ap-worlds", type=int, default=200)
    options = parser.parse_args()
    env = environment()
    print(
        f"`python -m benchmarks.experiments.coverage --worlds {options.worlds} --ap-worlds {options.ap_worlds}`, "
        f"revision {env['revision']}, {env['cpus']} cores of {platform.machine()}, OMP_NUM_THREADS="
        f"{os.environ.get('OMP_NUM_THREADS', 'not set')}, Python {platform.python_version()}, numpy {np.__version__}, "
        f"{datetime.date.today()}. Intervals at 95 %; ± is a standard error over the worlds.\n"
    )
    print("| metric | samples | seeds | sd between runs, points | worlds | coverage, % | half width, points |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in METRICS:
        slow = METRICS[name] is average_precision
        worlds = options.ap_worlds if slow else options.worlds
        for samples in (60, 200) if slow else (60, 200, 1000):
            for seeds, sd in ((3, 0.01), (3, 0.03)) if slow else ((3, 0.01), (3, 0.03), (5, 0.01)):
                share, error, half = measure(name, samples, seeds, sd, worlds)
                held = f"{100 * share:.1f} ± {100 * error:.1f}"
                cells = (name, f"{samples:,}", seeds, f"{100 * sd:g}", worlds, held, f"{100 * half:.1f}")
                print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
