"""Worlds whose truth is known: two backbones, trained with a few seeds each, measured over one set of samples.

Samples are hard for both, for one, or for one run; runs have their own luck (`sd`, points). The truth is that of
endless samples and runs: in closed form for accuracy and recall, of a large draw for mIoU, and for AP, which depends on
the size of a set, the mean over all worlds of that size.
"""

from __future__ import annotations

import functools
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
from benchmarks.report.statistics.variance import Arm, arm_of
from tasks.contract.task import sums_of_mean
from tasks.detection.scoring.resampling import resampled_ap
from tasks.segmentation.adapter import mean_iou

SHARED, OWN, RUN = 0.5, 0.25, 0.25  # variances of what makes a sample hard: for all, for a model, for a run
CLASSES, CATEGORIES, KEPT = 6, 4, 12
CAPTIONS = 5
MIOU_LEVELS = (0.65, 0.60)


@dataclass(frozen=True)
class World:
    """Two models' arms, and what each reaches in truth (None: the mean over worlds)."""

    arms: tuple[Arm, Arm]
    truths: tuple[float, float] | None


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


def top1(
    rng: np.random.Generator, samples: int, seeds: int, sd: float, truths: tuple[float, float] = (0.62, 0.60)
) -> World:
    groups, arms = deal_groups(samples), []
    for hard, truth in zip(hardness(rng, (samples,), seeds), truths, strict=True):
        right = hard < limits(rng, truth, sd, seeds)[:, None]
        arms.append(arm([replicates_of_sums(*sums_of_mean(r.astype(float)), groups) for r in right], groups))
    return World((arms[0], arms[1]), truths)


def clustered(rng: np.random.Generator, units: int, size: int, seeds: int) -> list[np.ndarray]:
    """Hardness of each of two models [S, units * size]: those of a unit are hard together."""
    whole, parts = hardness(rng, (units, 1), seeds), hardness(rng, (units, size), seeds)
    return [((unit + part) / 2**0.5).reshape(seeds, -1) for unit, part in zip(whole, parts, strict=True)]


def recall(
    rng: np.random.Generator, samples: int, seeds: int, sd: float, truths: tuple[float, float] = (0.42, 0.40)
) -> World:
    """R@1 of captions: those of a picture are hard together, and stay together."""
    groups, arms = deal_groups(samples * CAPTIONS, np.repeat(np.arange(samples), CAPTIONS)), []
    for hard, truth in zip(clustered(rng, samples, CAPTIONS, seeds), truths, strict=True):
        right = hard < limits(rng, truth, sd, seeds)[:, None]
        arms.append(arm([replicates_of_sums(*sums_of_mean(r.astype(float)), groups) for r in right], groups))
    return World((arms[0], arms[1]), truths)


def counts_of(rng: np.random.Generator, labelled: np.ndarray, hard: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Counts [S, N, 3, C]: of each image's labelled areas a share is right, the rest is given to the next class."""
    share = norm.cdf(level[:, None, None] - 0.6 * hard[..., None] + 0.15 * np.arange(CLASSES))
    right = labelled * share
    predicted = right + np.roll(labelled - right, 1, axis=-1)
    return np.stack([right, predicted, np.broadcast_to(labelled, right.shape)], axis=2)


def areas(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Labelled areas [N, C]; a class is in four of ten images."""
    return rng.gamma(1.0, 100.0, (samples, CLASSES)) * (rng.random((samples, CLASSES)) < 0.4)


def miou(rng: np.random.Generator, samples: int, seeds: int, sd: float, frames: int = 1) -> World:
    """Of single pictures, or of blocks of so many frames, which show the same classes and are hard together."""
    labelled, arms = np.repeat(areas(rng, samples), frames, axis=0), []
    if frames > 1:
        labelled *= rng.gamma(4.0, 0.25, labelled.shape)
    groups = deal_groups(samples * frames, np.repeat(np.arange(samples), frames))
    found = hardness(rng, (samples,), seeds) if frames == 1 else clustered(rng, samples, frames, seeds)
    for hard, level in zip(found, MIOU_LEVELS, strict=True):
        counts = counts_of(rng, labelled, hard, level + rng.normal(0, 2.5 * sd, seeds))
        arms.append(arm([replicates_of_sums(c, mean_iou, groups) for c in counts], groups))
    return World((arms[0], arms[1]), (true_miou(MIOU_LEVELS[0], sd), true_miou(MIOU_LEVELS[1], sd)))


@functools.cache
def true_miou(level: float, sd: float, samples: int = 40_000, runs: int = 41) -> float:
    """Of endless images, by the quantiles of a run's luck. Frames of a block have the same: sums do not see blocks."""
    rng = np.random.default_rng(12345)
    labelled, hard = areas(rng, samples), rng.normal(0, 1, (1, samples))
    luck = 2.5 * sd * norm.ppf((np.arange(runs) + 0.5) / runs)
    found = [mean_iou(counts_of(rng, labelled, hard, np.array([level + u]))[0].sum(0)[None])[0] for u in luck]
    return float(np.mean(found))


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
