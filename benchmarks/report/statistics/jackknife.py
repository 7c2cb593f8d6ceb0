"""Delete-group jackknife of a metric: its value over all samples, without each group, and over halves of the samples.

Efron and Stein, "The jackknife estimate of variance", Annals of Statistics 9 (1981); groups as in Kott, "The
delete-a-group jackknife", Journal of Official Statistics 17 (2001).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

MAX_GROUPS = 400
SPLITS = 10  # random splits into halves, for the value of the best choice
BLOCK = 1 << 23  # weights of one call of `resampled`: 64 MiB as float64

Metric = Callable[[np.ndarray], np.ndarray]  # sums [R, ...] to values [R]


@dataclass(frozen=True)
class Groups:
    """Which group each sample is in.

    Args:
        index: int64 [N] from 0 to `number - 1`.
        number: K, at most 400.
        units: independent units: samples, or clusters where there are any.
        unit: int64 [N], the unit of each sample.
    """

    index: np.ndarray
    number: int
    units: int
    unit: np.ndarray

    @property
    def samples(self) -> int:
        return len(self.index)

    def halves(self) -> np.ndarray:
        """bool [SPLITS, K]: groups of the first half in each of several random splits; the same for every row."""
        order = np.argsort(np.random.default_rng(1).random((SPLITS, self.number)), axis=1)
        return order < self.number // 2


def deal_groups(samples: int, clusters: np.ndarray | None = None, limit: int = MAX_GROUPS) -> Groups:
    """One group for each sample, or for each cluster; above `limit` they are dealt at random, the same every time.

    Files are often sorted by class: groups in the order of the file would each be a class.

    Args:
        samples: N.
        clusters: [N] integers or strings; samples of one cluster (captions of a picture, frames of a drive) are never
            separated.

    Raises: ValueError where `clusters` has another length.

    Example: `deal_groups(50_000).number` is 400
    """
    if clusters is None:
        unit, count = np.arange(samples, dtype=np.int64), samples
    else:
        if len(clusters) != samples:
            raise ValueError(f"{len(clusters)} cluster names for {samples} samples")
        names, unit = np.unique(clusters, return_inverse=True)
        unit, count = unit.astype(np.int64), len(names)
    if count <= limit:
        return Groups(unit, count, count, unit)
    return Groups((np.random.default_rng(0).permutation(count) % limit)[unit], limit, count, unit)


@dataclass(frozen=True)
class Replicates:
    """A metric of one row, recomputed over parts of its samples.

    Args:
        whole: over all samples.
        without: float64 [K], without each group.
        halves: float64 [SPLITS, 2], over the two halves of each split.
        all_or_none: has every unit by itself the value 0 or 1? So pictures that are right or wrong, and never blocks of
            pixels. False where a unit has no value by itself (AP).
    """

    whole: float
    without: np.ndarray
    halves: np.ndarray
    all_or_none: bool = False

    @property
    def finite(self) -> bool:
        """Is the metric defined without every single group?"""
        return bool(np.isfinite(self.whole) and np.isfinite(self.without).all())


def replicates_of_sums(terms: np.ndarray, metric: Metric, groups: Groups) -> Replicates:
    """For a metric that is a function of sums over samples (accuracy, recall, IoU): one pass over the samples.

    Args:
        terms: float64 [N, ...], what is summed.
        metric: sums [R, ...] to values [R].

    Example: `replicates_of_sums(np.stack([right, ones], 1), lambda s: s[:, 0] / s[:, 1], deal_groups(len(right)))`
    """
    shape = (-1, *np.shape(terms)[1:])
    flat = np.asarray(terms, np.float64).reshape(len(terms), -1)
    by_group = _summed(flat, groups.index, groups.number)
    total = by_group.sum(0)
    first = groups.halves().astype(np.float64) @ by_group
    sums = np.concatenate([total[None], total - by_group, first, total - first])
    units = _summed(flat, groups.unit, groups.units)
    alone = metric(units[units.any(1)].reshape(shape))  # a unit without labels has no value
    all_or_none = bool(np.isin(alone[np.isfinite(alone)], (0.0, 1.0)).all())
    return _replicates(metric(sums.reshape(shape)), groups, all_or_none)


def _summed(values: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    """Sums [count, T] of values [N, T] that have the same place."""
    return csr_matrix((np.ones(len(values)), (places, np.arange(len(values)))), (count, len(values))) @ values


def replicates_of_weights(resampled: Callable[[np.ndarray], np.ndarray], groups: Groups) -> Replicates:
    """For any metric that can be computed of weighted samples (AP), in blocks of bounded memory.

    Args:
        resampled: weights float64 [R, N] of 0 and 1 to values [R].

    Example: `replicates_of_weights(lambda weights: task.resampled(samples, weights), deal_groups(len(ids)))`
    """
    halves = groups.halves()
    kept = np.concatenate([np.ones((1, groups.number), bool), ~np.eye(groups.number, dtype=bool), halves, ~halves])
    step = max(1, BLOCK // max(1, groups.samples))
    values = [
        np.asarray(resampled(kept[i : i + step][:, groups.index].astype(np.float64))) for i in range(0, len(kept), step)
    ]
    return _replicates(np.concatenate(values), groups)


def _replicates(values: np.ndarray, groups: Groups, all_or_none: bool = False) -> Replicates:
    halves = values[1 + groups.number :].reshape(2, SPLITS).T
    return Replicates(float(values[0]), np.asarray(values[1 : 1 + groups.number], np.float64), halves, all_or_none)
