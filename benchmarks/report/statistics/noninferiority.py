"""May one model replace another, at a margin? Non-inferiority at each grid, corrected over those of a comparison."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtr

from benchmarks.report.statistics.power import decidable, needs_samples, needs_seeds
from benchmarks.report.statistics.variance import ALPHA, Arm, Estimate, Parts, estimate, quantile

Answer = Literal["yes", "no", "undecided", "empty"]


@dataclass(frozen=True)
class Rules:
    """What is allowed, in the unit of the metric (fractions for those from 0 to 1).

    Args:
        margin: how much worse the replacement may be; None where only `share` limits it.
        share: of what the fixed model reaches above chance, that it may lose at most.
        chance: of the metric without learning anything; None where it is not known.
        higher: is more better?
        fraction: is it a metric from 0 to 1? Then its variance has a floor (`least_variance`).
        alpha: the chance of any wrong verdict in one comparison.
    """

    margin: float | None = 0.01
    share: float = 0.05
    chance: float | None = 0.0
    higher: bool = True
    fraction: bool = True
    alpha: float = ALPHA

    def __post_init__(self) -> None:
        if self.margin is not None and not (np.isfinite(self.margin) and self.margin >= 0):
            raise ValueError(f"a margin must be a number from 0 on, not {self.margin}")

    def allowance(self, fixed: float) -> tuple[float, bool]:
        """The margin against a model that reaches `fixed`, and whether the share made it smaller than `margin`.

        Example: `Rules(chance=0.1).allowance(0.2)` is `(0.005, True)`
        """
        reach = abs(fixed) if self.chance is None else (fixed - self.chance if self.higher else self.chance - fixed)
        share = self.share * max(0.0, reach)
        return (share, True) if self.margin is None or share < self.margin else (self.margin, False)

    def above_chance(self, found: Estimate) -> bool:
        """Does the better end of chance lie outside the interval? Always, where chance is not known."""
        if self.chance is None:
            return True
        low, high = found.interval(self.alpha)
        return low > self.chance if self.higher else high < self.chance


def holm(p: Sequence[float], alpha: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Adjusted p values, and the level at which each test was made: where the procedure stops, all later ones keep it.

    Step-down procedure of Holm, Scandinavian Journal of Statistics 6 (1979).

    A test is rejected where its adjusted p value is at most `alpha`, which is where p is at most its level.

    Example: `holm([.01, .04, .03, .005])` is `[.03, .06, .06, .02], [.05 / 3, .025, .025, .0125]`
    """
    values = np.asarray(p, np.float64)
    if not len(values):
        return values, values
    order = np.argsort(values, kind="stable")
    left = len(values) - np.arange(len(values))
    adjusted, level = np.empty(len(values)), np.empty(len(values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * left))
    steps = alpha / left
    failed = np.flatnonzero(values[order] > steps)
    if len(failed):
        steps[failed[0] :] = steps[failed[0]]
    level[order] = steps
    return adjusted, level


@dataclass(frozen=True)
class GridVerdict:
    """The verdict at one grid. `difference` is flexible - fixed, its sign turned where less is better.

    Args:
        a, b: the metric of the flexible and of the fixed model, means over their seeds.
        margin: what was allowed here; `capped` where it is the share of what is reached above chance.
        p, p_holm, level: of the test against the margin; `level` is where Holm's procedure tested or stopped.
        uncorrected: the verdict of this grid alone, for claims that need every grid.
        ahead: better than the fixed one, at the corrected level.
        grids: tests of the comparison, G.
        needs_seeds, needs_samples: what would decide the margin, each alone; None where it alone would not, and where
            the question does not arise.
        falls_at: standard deviation between training runs at which a verdict of single runs no longer holds.
    """

    grid: str
    a: float
    b: float
    difference: Estimate
    margin: float
    capped: bool
    signal: bool
    alpha: float
    p: float = 1.0
    p_holm: float = 1.0
    level: float = ALPHA
    uncorrected: Answer = "empty"
    verdict: Answer = "empty"
    ahead: bool = False
    grids: int = 1
    needs_seeds: int | None = None
    needs_samples: int | None = None
    falls_at: float | None = None

    @property
    def interval(self) -> tuple[float, float]:
        """Of the difference at this grid alone, not corrected."""
        return self.difference.interval(self.alpha)

    @property
    def t(self) -> float:
        return _ratio(self.difference.value + self.margin, self.difference.se)

    @property
    def yes_from(self) -> float:
        """The margin from which on this result is a yes."""
        return max(0.0, self.difference.half_width(self.level) - self.difference.value)

    @property
    def no_below(self) -> float:
        """The margin below which this result is a no."""
        return max(0.0, -self.difference.half_width(self.level) - self.difference.value)

    @property
    def decidable(self) -> float:
        """The margin that such data decide for equal models in 80 of 100 cases."""
        return decidable(self.difference.parts, self.grids, self.alpha)


@dataclass(frozen=True)
class Comparison:
    """A flexible model against a fixed one, trained alike, at the grids where both are."""

    verdicts: tuple[GridVerdict, ...]

    @property
    def everywhere(self) -> Answer:
        """At every grid with a signal? An intersection-union test: yes needs every uncorrected yes, no one corrected
        no."""
        found = [v for v in self.verdicts if v.verdict != "empty"]
        if not found:
            return "empty"
        if any(v.verdict == "no" for v in found):
            return "no"
        return "yes" if all(v.uncorrected == "yes" for v in found) else "undecided"

    @property
    def hollow(self) -> bool:
        return any(v.difference.hollow for v in self.verdicts)


def compare(flexible: Mapping[str, Arm], fixed: Mapping[str, Arm], rules: Rules) -> Comparison:
    """Verdicts at the grids that both have, in the order of `flexible`.

    Args: arms of one grid each, by grid.

    Raises: ValueError where the arms were measured over other samples.

    Example: `compare({"8": flexible_at_8}, {"8": fixed_at_8}, Rules(chance=0.1)).verdicts[0].verdict`
    """
    found = [_measured(grid, flexible[grid], fixed[grid], rules) for grid in flexible if grid in fixed]
    live = [i for i, v in enumerate(found) if v.signal]
    p = [_p(found[i].t, found[i].difference.df) for i in live]
    better = [p_value(found[i].difference) for i in live]
    adjusted, level = holm(p, rules.alpha)
    ahead, _ = holm(better, rules.alpha)
    for place, i in enumerate(live):
        verdict = _decided(found[i].t, adjusted[place], rules.alpha)
        judged = dataclasses.replace(
            found[i], p=p[place], p_holm=float(adjusted[place]), level=float(level[place]), grids=len(live),
            uncorrected=_decided(found[i].t, p[place], rules.alpha), verdict=verdict,
            ahead=verdict == "yes" and found[i].difference.value > 0 and bool(ahead[place] <= rules.alpha),
        )  # fmt: skip
        found[i] = _with_remedies(judged, flexible[judged.grid], fixed[judged.grid])
    return Comparison(tuple(found))


def _measured(grid: str, a: Arm, b: Arm, rules: Rules) -> GridVerdict:
    single = [estimate(lambda x: x[0], [arm], rules.fraction) for arm in (a, b)]
    sign = 1 if rules.higher else -1
    difference = estimate(lambda x, y: sign * (x[0] - y[0]), [a, b], rules.fraction)
    if a.keys and a.keys == b.keys:  # a model against itself: there is nothing to be unsure of
        nothing = tuple(0.0 for _ in range(2))
        parts = Parts(0.0, nothing, nothing, (a.seeds, b.seeds), (-1, -1), a.groups, a.units)
        difference = dataclasses.replace(difference, parts=parts)
    margin, capped = rules.allowance(single[1].value)
    signal = any(rules.above_chance(s) for s in single)
    return GridVerdict(grid, single[0].value, single[1].value, difference, margin, capped, signal, rules.alpha)


def _with_remedies(judged: GridVerdict, a: Arm, b: Arm) -> GridVerdict:
    parts = judged.difference.parts
    if judged.difference.scope == "weights":
        if not judged.difference.retrainable:
            return judged
        reach = (judged.difference.value + judged.margin) / quantile(1 - judged.level / 2, parts.df)
        spare = (reach**2 - parts.total) / (1 / a.seeds + 1 / b.seeds)
        return dataclasses.replace(judged, falls_at=float(np.sqrt(max(0.0, spare))))
    if judged.verdict != "undecided":
        return judged
    asked = (parts, judged.margin, judged.grids, judged.alpha)
    return dataclasses.replace(judged, needs_seeds=needs_seeds(*asked), needs_samples=needs_samples(*asked))


def p_value(found: Estimate) -> float:
    """Of a number's difference from 0, two-sided, by Student's t.

    Example: `p_value(estimate(lambda a, b: a[0] - b[0], [one, other]))`
    """
    return _p(_ratio(found.value, found.se), found.df)


def _ratio(value: float, se: float) -> float:
    if se > 0:
        return value / se
    return float(np.sign(value) * np.inf) if value else 0.0


def _p(t: float, df: float) -> float:
    return float(2 * stdtr(df, -abs(t)))


def _decided(t: float, p: float, alpha: float) -> Answer:
    return "undecided" if p > alpha else "yes" if t > 0 else "no"
