"""How much of what the specialists reach above chance one set of weights keeps, over grids and over tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.report.statistics.variance import ALPHA, Arm, Estimate, estimate, quantile


def log_trapezoid(costs: Sequence[float]) -> np.ndarray:
    """Weights [G], sum 1, of the trapezoid rule over the logarithm of the costs, in the order of `costs`.

    Raises: ValueError for costs that are not above 0.

    Example: `log_trapezoid([1, 2, 8])` is `[1 / 6, 1 / 2, 1 / 3]`
    """
    values = np.asarray(costs, np.float64)
    if not (values > 0).all():
        raise ValueError(f"costs must be above 0, not {min(costs)}")
    if len(values) == 1 or values.min() == values.max():
        return np.full(len(values), 1 / len(values))
    order = np.argsort(values, kind="stable")
    steps = np.diff(np.log(values[order]))
    weights = np.empty(len(values))
    weights[order] = (np.append(steps, 0) + np.append(0, steps)) / 2
    return weights / weights.sum()


@dataclass(frozen=True)
class Retention:
    """`estimate.value` is 1 where the flexible weights reach what the specialists reach.

    Args:
        grids: that have a specialist; `weights` their weights.
        gaps: specialist - flexible at each of them, in the unit of the metric; negative where the flexible is better.
    """

    estimate: Estimate
    grids: tuple[str, ...]
    weights: tuple[float, ...]
    gaps: tuple[float, ...]

    @property
    def worst(self) -> tuple[str, float]:
        """The grid with the largest gap, and the gap."""
        return max(zip(self.grids, self.gaps, strict=True), key=lambda pair: pair[1])


def retain(
    flexible: Arm, specialists: Mapping[str, Arm], costs: Sequence[float], chance: float, higher: bool = True
) -> Retention | None:
    """Retention `sum w (A_g - chance) / sum w (S_g - chance)`; None where the specialists are not above chance.

    Args:
        flexible: one set of weights, measured at the grids of `specialists` in their order: values [S, G].
        specialists: by grid, each trained and evaluated there.
        costs: of each grid, MACs.
        chance: of the metric.

    Raises: ValueError for other grids than the flexible arm has.

    Example: `retain(flexible, {"8": fixed_8, "15": fixed_15}, [8.9e7, 3.5e8], chance=0.1).estimate.value`
    """
    grids = list(specialists)
    if flexible.values.shape[1] != len(grids) or len(costs) != len(grids):
        raise ValueError(f"{len(grids)} specialists, {flexible.values.shape[1]} grids, {len(costs)} costs")
    weights = log_trapezoid(costs)
    sign = 1 if higher else -1

    def ratio(own: np.ndarray, *others: np.ndarray) -> np.ndarray:
        above = sum(w * (o[0] - chance) for w, o in zip(weights, others, strict=True))
        return np.tensordot(weights, own - chance, 1) / above

    means = [float(arm.values.mean()) for arm in specialists.values()]
    if sign * float(weights @ (np.array(means) - chance)) <= 0:
        return None
    found = estimate(ratio, [flexible, *specialists.values()])
    gaps = tuple(sign * (m - a) for m, a in zip(means, flexible.values.mean(0).tolist(), strict=True))
    return Retention(found, tuple(grids), tuple(weights.tolist()), gaps)


def untrained_penalty(at: Arm, costs: tuple[float, float, float], higher: bool = True) -> Estimate:
    """What a grid loses for never having been trained: interpolated between its trained neighbours, less what it has.

    Args:
        at: one model at the next trained grid below, at the grid itself, and at the next above: values [S, 3].
        costs: of the three, MACs; between the neighbours the metric is a line over the logarithm of the cost.

    Example: `untrained_penalty(arm_of([[at_6, at_7, at_8]], units), (6e7, 7e7, 9e7)).interval()`
    """
    low, own, high = np.log(costs)
    if not low < own < high:
        raise ValueError(f"the costs of neighbours must rise, not {costs}")
    share = (own - low) / (high - low)
    sign = 1 if higher else -1
    return estimate(lambda m: sign * ((1 - share) * m[0] + share * m[2] - m[1]), [at])


@dataclass(frozen=True)
class Across:
    """The geometric mean of retention over tasks, its 95 % interval, and the worst task."""

    mean: float
    low: float
    high: float
    df: float
    worst: float


def retain_across(tasks: Sequence[tuple[float, float, float]], alpha: float = ALPHA) -> Across:
    """Of (retention, its standard error, its degrees of freedom) of each task, by the delta method on logarithms.

    Raises: ValueError for a retention that is not above 0: there is no geometric mean.

    Example: `retain_across([(0.98, 0.01, 6.0), (0.90, 0.02, 8.0)]).mean`
    """
    values, errors, dfs = np.array(tasks, np.float64).T
    if not (values > 0).all():
        raise ValueError(f"a retention of {values.min():.3g} has no geometric mean")
    own = (errors / values) ** 2
    centre, variance = float(np.log(values).mean()), float(own.sum()) / len(values) ** 2
    spread = float((own**2 / dfs).sum())
    df = float(own.sum()) ** 2 / spread if spread > 0 else float(dfs.sum())
    half = quantile(1 - alpha / 2, df) * np.sqrt(variance)
    return Across(
        float(np.exp(centre)), float(np.exp(centre - half)), float(np.exp(centre + half)), df, float(values.min())
    )
