"""Which choices could be the best, and which is surely good enough and cheapest: all pairs at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.report.statistics.draws import Choice, Deviations, deviations
from benchmarks.report.statistics.noninferiority import Rules
from benchmarks.report.statistics.variance import ALPHA, Arm, least_variance


@dataclass(frozen=True)
class Best:
    """What can be said of the best choice.

    Args:
        measured: the place of the choice with the best value.
        halved: its value where the best is chosen on one half of the samples and measured on the other.
        could_be: places of all choices that could be best, the measured best among them, best first.
        cheapest: the cheapest that is surely within the margin of whichever is best; None where none can be shown.
        critical: the quantile of the largest of all pairs' |T|.
        errors: standard errors [C, C] of the differences of all pairs.
    """

    measured: int
    halved: float
    could_be: tuple[int, ...]
    cheapest: int | None
    critical: float
    errors: np.ndarray = field(default_factory=lambda: np.zeros((1, 1)), repr=False, compare=False)


def find_best(
    choices: Sequence[Choice], margin: float, higher: bool = True, fraction: bool = True, alpha: float = ALPHA
) -> Best:
    """Simultaneous statements over all pairs of choices (max-|T| by multipliers), at joint level `alpha`.

    Args: as of `Rules`; choices measured over the same samples.

    Raises: ValueError without choices, or for choices of other samples.

    Example: `[choices[i].name for i in find_best(choices, margin=0.01).could_be]`
    """
    if not choices:
        raise ValueError("there is nothing to choose from")
    sign = 1 if higher else -1
    values = sign * np.array([c.value for c in choices])
    measured = int(values.argmax())
    halved = _chosen_on_halves(choices, sign)
    if len(choices) == 1:
        return Best(measured, halved, (0,), 0, 0.0)
    found = deviations(choices)
    errors = pair_errors(choices, found, fraction)
    critical = _critical(found, alpha)
    could, sure = _not_beaten(values, errors, critical), _surely_within(values, errors, critical, margin)
    order = [int(i) for i in np.argsort(-values, kind="stable") if could[i]]
    return Best(measured, halved, tuple(order), _cheapest(choices, values, sure), critical, errors)


@dataclass(frozen=True)
class Affordable:
    """What can be said of the choices within a budget: places of the best measured one, of those that could be best
    there, best first, and of the cheapest that is surely within the margin of them all."""

    measured: int
    could_be: tuple[int, ...]
    cheapest: int | None


def within_budget(
    choices: Sequence[Choice], best: Best, costs: Sequence[float | None], budget: float, rules: Rules
) -> Affordable | None:
    """The choices that cost at most `budget`, by the joint statements of `find_best` over all of them; None where
    nothing is so cheap.

    Args:
        costs: of each choice, in the unit of the budget; what has none is not chosen.

    Example: `within_budget(choices, best, [c.cost for c in choices], 0.2e9, rules).measured`
    """
    inside = np.array([i for i, cost in enumerate(costs) if cost is not None and cost <= budget], int)
    if not len(inside):
        return None
    own = [choices[i] for i in inside]
    values = (1 if rules.higher else -1) * np.array([c.value for c in own])
    errors = best.errors[np.ix_(inside, inside)] if len(choices) > 1 else best.errors
    top = int(values.argmax())
    could = _not_beaten(values, errors, best.critical)
    sure = _surely_within(values, errors, best.critical, rules.allowance(own[top].value)[0])
    order = [int(inside[i]) for i in np.argsort(-values, kind="stable") if could[i]]
    told = [costs[i] for i in inside]
    cheapest = min(np.flatnonzero(sure).tolist(), key=lambda i: (told[i], -values[i]), default=None)
    return Affordable(int(inside[top]), tuple(order), None if cheapest is None else int(inside[cheapest]))


def _not_beaten(values: np.ndarray, errors: np.ndarray, critical: float) -> np.ndarray:
    """Which choices [C] no other is surely better than."""
    gaps = values[None] - values[:, None]  # [i, j]: by how much j is better than i
    return ~(gaps > critical * errors).any(1)


def _surely_within(values: np.ndarray, errors: np.ndarray, critical: float, margin: float) -> np.ndarray:
    """Which choices [C] lose surely less than the margin to any other."""
    gaps = values[None] - values[:, None]
    return (((gaps + critical * errors) < margin) | np.eye(len(values), dtype=bool)).all(1)


def _cheapest(choices: Sequence[Choice], values: np.ndarray, sure: np.ndarray) -> int | None:
    cheap = [i for i in np.flatnonzero(sure).tolist() if choices[i].cost is not None]
    return min(cheap, key=lambda i: (choices[i].cost, -values[i]), default=None)


def _chosen_on_halves(choices: Sequence[Choice], sign: int) -> float:
    """The mean over splits, and over which half chooses."""
    halves = np.stack([c.halves for c in choices])  # [C, SPLITS, 2]
    chosen = np.nanargmax(np.where(np.isfinite(halves), sign * halves, -np.inf), axis=0)
    splits = np.arange(halves.shape[1])
    return float(np.mean([halves[chosen[:, 0], splits, 1], halves[chosen[:, 1], splits, 0]]))


def pair_errors(choices: Sequence[Choice], found: Deviations, fraction: bool) -> np.ndarray:
    """Standard errors [C, C] of all differences, each as in a comparison of the two; the training runs of one model
    are the same at all its grids, so there they are paired."""
    units, whole = choices[0].arm.units, np.array([c.arm.all_or_none for c in choices])
    noise = (found.seeds**2).sum(1)
    crossed = np.array([interaction(c.arm) for c in choices])
    models = np.array([c.model for c in choices])
    errors = np.zeros((len(choices), len(choices)))
    for i, own in enumerate(choices):
        apart = found.samples[i] - found.samples
        samples = (apart**2).sum(1)
        for alike in (True, False) if fraction else ():
            pairs = (whole & whole[i]) == alike
            samples[pairs] = np.maximum(samples[pairs], least_variance(apart[pairs], units, alike))
        seeds = ((found.seeds[i] - found.seeds) ** 2).sum(1)
        total = np.maximum(samples + noise[i] + noise - crossed[i] - crossed, np.maximum(samples, seeds))
        for j in np.flatnonzero(models == models[i]).tolist():
            shared = interaction(own.arm, choices[j].arm) if own.arm.noisy else 0.0
            total[j] = max(samples[j] + seeds[j] - shared, samples[j], seeds[j])
        errors[i] = np.sqrt(total)
        errors[i, i] = 0.0
    return errors


def interaction(arm: Arm, other: Arm | None = None) -> float:
    """Variance of the interaction of seeds and samples: of an arm at one grid, or of its difference to another of the
    same training runs."""
    if not arm.noisy:
        return 0.0
    left = arm.without[:, 0] - (0.0 if other is None else other.without[:, 0])
    count, groups = left.shape
    left = (left.sum(0) - left) / (count - 1)
    residual = left - left.mean(0) - left.mean(1, keepdims=True) + left.mean()
    return float((count - 1) / count * (groups - 1) / groups * (residual**2).sum())


def _critical(found: Deviations, alpha: float) -> float:
    drawn = found.draw()
    whole = np.concatenate([found.samples, found.seeds], axis=1)
    largest = np.zeros(drawn.shape[1])
    for i in range(1, len(drawn)):
        spread = np.sqrt(((whole[i] - whole[:i]) ** 2).sum(1))
        differ = spread > 0
        if differ.any():
            ratios = np.abs(drawn[i] - drawn[:i][differ]) / spread[differ, None]
            np.maximum(largest, ratios.max(0), out=largest)
    return float(np.quantile(largest, 1 - alpha))
