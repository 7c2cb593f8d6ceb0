"""The variance of a number made of metrics: samples and seeds together, by two jackknives.

The arms of a number are its trained models. Their samples are the same and are left out together, once; their seeds are
independent and are left out arm by arm. The variance over samples and that over seeds both contain the interaction of
seeds and samples, so it is taken off once (the analysis of variance of a two-way random layout; Satterthwaite,
Biometrics Bulletin 2 (1946), for the degrees of freedom).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import stdtrit

from benchmarks.report.statistics.jackknife import Replicates

ALPHA = 0.05
STILL = 1e-12  # of a number from 0 to 1: what moves it by less leaves it as it is
SPEAKING = 2 + 1e-6  # units: of no more of them nobody knows what the next one would say
Scope = Literal["recipes", "weights"]


@dataclass(frozen=True)
class Arm:
    """A model under all its seeds, measured at one or more grids.

    Args:
        values: float64 [S, M], of each seed at each of M grids.
        without: float64 [S, M, K], the same without each group of samples.
        units: independent samples or clusters.
        trained: False where nothing is trained, so that there is no noise of training.
        keys: of the rows, [S * M]; two arms of the same keys are the same measurement.
        all_or_none: had every unit the value 0 or 1 in every run?
    """

    values: np.ndarray
    without: np.ndarray
    units: int
    trained: bool = True
    keys: tuple[str, ...] = ()
    all_or_none: bool = False

    def __post_init__(self) -> None:
        seeds, grids, groups = self.without.shape
        if self.values.shape != (seeds, grids):
            raise ValueError(f"values {self.values.shape} and leave-outs {self.without.shape} of an arm do not match")
        if not seeds or groups < 2:
            raise ValueError(f"an arm needs a seed and two groups of samples, not {seeds} and {groups}")

    @property
    def seeds(self) -> int:
        return len(self.values)

    @property
    def groups(self) -> int:
        return self.without.shape[2]

    @property
    def noisy(self) -> bool:
        """Is its training noise measured?"""
        return self.trained and self.seeds > 1


def arm_of(seeds: Sequence[Sequence[Replicates]], units: int, **more: Any) -> Arm:
    """An arm of `seeds[seed][grid]`.

    Example: `arm_of([[at_8] for at_8 in replicates_of_each_seed], groups.units)`
    """
    values = np.array([[r.whole for r in grids] for grids in seeds], np.float64)
    without = np.array([[r.without for r in grids] for grids in seeds], np.float64)
    return Arm(values, without, units, all_or_none=all(r.all_or_none for grids in seeds for r in grids), **more)


@dataclass(frozen=True)
class Parts:
    """Components of a variance; those of seeds and of the interaction one an arm, 0 where there is no noise."""

    samples: float
    seeds: tuple[float, ...]
    interaction: tuple[float, ...]
    counts: tuple[int, ...]  # seeds of each arm
    lenders: tuple[int, ...]  # the arm whose training noise is used: its own, that of another, -1 for none
    groups: int
    units: int

    @property
    def total(self) -> float:
        """Never below the variance over samples alone, nor below that over seeds alone."""
        seeds = sum(self.seeds)
        return max(self.samples + seeds - sum(self.interaction), self.samples, seeds)

    @property
    def df(self) -> float:
        """Satterthwaite's degrees of freedom; what one arm lends to another is one estimate, not two."""
        spread = self.samples**2 / (self.groups - 1)
        for lender in set(self.lenders) - {-1}:
            lent = sum(v for v, own in zip(self.seeds, self.lenders, strict=True) if own == lender)
            spread += lent**2 / (self.counts[lender] - 1)
        return self.total**2 / spread if spread > 0 else float(self.groups - 1)


@dataclass(frozen=True)
class Estimate:
    """A number with its uncertainty.

    Args:
        scope: "recipes" where the noise of training is in `parts`; "weights" where it says something of these very
            weights only.
        retrainable: with scope "weights": would another seed have given other weights?
    """

    value: float
    parts: Parts
    scope: Scope
    retrainable: bool
    borrowed: bool = False  # one arm has the training noise of the other

    @property
    def se(self) -> float:
        return float(np.sqrt(self.parts.total))

    @property
    def df(self) -> float:
        return self.parts.df

    @property
    def hollow(self) -> bool:
        """One training run each: it judges files and not backbones, and is drawn hollow."""
        return self.scope == "weights" and self.retrainable

    @property
    def seed_share(self) -> float:
        """How much of the variance more seeds would take away, from 0 to 1."""
        total = self.parts.total
        return (total - self.parts.samples) / total if total > 0 else 0.0

    def half_width(self, level: float = ALPHA) -> float:
        """Half an interval that misses with probability `level`."""
        return quantile(1 - level / 2, self.df) * self.se

    def interval(self, level: float = ALPHA) -> tuple[float, float]:
        half = self.half_width(level)
        return self.value - half, self.value + half


def quantile(probability: float, df: float) -> float:
    """Of Student's t with `df` degrees of freedom (`scipy.stats.t.ppf`, a hundred times as fast)."""
    return float(stdtrit(df, probability))


def estimate(function: Callable[..., Any], arms: Sequence[Arm], floor: bool = False) -> Estimate:
    """`function` of the metrics of the arms, with its uncertainty.

    Args:
        function: smooth; one array [M, ...] an arm (its mean over seeds at each of its grids) to an array [...].
        floor: for a metric or a difference of metrics from 0 to 1: the variance over samples is never below
            `least_variance`.

    Raises: ValueError where the arms were measured over other groups of samples.

    Example: `estimate(lambda a, b: a[0] - b[0], [flexible, fixed], floor=True).interval()`
    """
    groups, units = arms[0].groups, arms[0].units
    if any((a.groups, a.units) != (groups, units) for a in arms):
        raise ValueError(f"arms of different samples: {', '.join(f'{a.units} in {a.groups} groups' for a in arms)}")
    means = [arm.values.mean(0) for arm in arms]
    left = [arm.without.mean(0) for arm in arms]
    without = np.broadcast_to(function(*left), groups)
    samples = _spread(without)
    if floor:
        samples = max(samples, float(least_variance(without, units, all(a.all_or_none for a in arms))))
    seeds, interaction, lenders = [0.0] * len(arms), [0.0] * len(arms), [-1] * len(arms)
    for place, arm in enumerate(arms):
        if arm.noisy:
            seeds[place], interaction[place] = _noise(function, arms, means, left, place)
            lenders[place] = place
    owners = [i for i, arm in enumerate(arms) if arm.noisy]
    borrowers = [i for i, arm in enumerate(arms) if arm.trained and not arm.noisy] if owners else []
    for place in borrowers:
        lender = min(owners, key=lambda i: (-arms[i].seeds, i))
        seeds[place], interaction[place] = _lent(function, arms[lender], means, place)
        lenders[place] = lender
    counts = tuple(arm.seeds for arm in arms)
    parts = Parts(samples, tuple(seeds), tuple(interaction), counts, tuple(lenders), groups, units)
    retrainable = any(arm.trained for arm in arms)
    value = float(np.asarray(function(*means)))
    return Estimate(value, parts, "recipes" if owners else "weights", retrainable, bool(borrowers))


def least_variance(without: np.ndarray, units: int, all_or_none: bool) -> np.ndarray:
    """What the variance over samples of a number from 0 to 1 is at least, [...].

    No finite set shows that two models never differ. Where units are all or nothing, the floor is `2 / (n + 2)**2`, as
    if two more of them spoke against each other (Bonett and Price, Journal of Educational and Behavioral Statistics 37
    (2012), where no pair is discordant). Where a unit holds many answers (a block of frames, a picture of boxes), units
    show by themselves how much they vary and 0 is enough, but where no more than two of them speak at all.

    Args:
        without: [..., K], the number without each group of units. Their number that speaks is `(sum v**2)**2 /
            sum v**4` of the deviations v: m of m units alike, 1 where one of them makes up all of the variance.
        units: n.
        all_or_none: has every unit the value 0 or 1?

    Example: `least_variance(np.full(25, 0.3), 25, False)` is `2 / 27**2`
    """
    floor = 2 / (units + 2) ** 2
    if all_or_none:
        return np.full(without.shape[:-1], floor)
    squares = (without - without.mean(-1, keepdims=True)) ** 2
    second, fourth = squares.sum(-1), (squares**2).sum(-1)
    few = (second < STILL**2) | (second**2 <= SPEAKING * fourth)
    return np.where(few, floor, 0.0)


def _spread(values: np.ndarray) -> float:
    """The jackknife variance [...] of leave-one-out values along the last axis."""
    count = values.shape[-1]
    return float((count - 1) / count * ((values - values.mean()) ** 2).sum())


def _without_each(values: np.ndarray) -> np.ndarray:
    """Means over all seeds but one: [S, M, ...] to [M, S, ...]."""
    return np.moveaxis((values.sum(0, keepdims=True) - values) / (len(values) - 1), 0, 1)


def _noise(
    function: Callable[..., Any], arms: Sequence[Arm], means: list[np.ndarray], left: list[np.ndarray], place: int
) -> tuple[float, float]:
    """Variance over the seeds of one arm, and that of their interaction with the samples."""
    arm = arms[place]
    held = [_without_each(arm.values) if i == place else m[:, None] for i, m in enumerate(means)]
    seeds = _spread(np.broadcast_to(function(*held), arm.seeds))
    both = [_without_each(arm.without) if i == place else m[:, None] for i, m in enumerate(left)]
    values = np.broadcast_to(function(*both), (arm.seeds, arm.groups))
    residual = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    shrink = (arm.seeds - 1) / arm.seeds * (arm.groups - 1) / arm.groups
    return seeds, float(shrink * (residual**2).sum())


def _lent(function: Callable[..., Any], lender: Arm, means: list[np.ndarray], place: int) -> tuple[float, float]:
    """The noise of one run, were it as noisy as the lender's: its metrics at all grids are moved together."""
    own = estimate(lambda metrics: metrics.mean(0), [lender])
    step = 1e-4 * max(1e-3, float(np.abs(means[place]).max()))
    up, down = (
        float(np.asarray(function(*(m + sign * step if i == place else m for i, m in enumerate(means)))))
        for sign in (1, -1)
    )
    weight = ((up - down) / (2 * step)) ** 2 * lender.seeds
    return weight * own.parts.seeds[0], weight * own.parts.interaction[0]
