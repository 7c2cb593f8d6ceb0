"""Joint draws of many measurements: how they could have come out together, over samples and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.report.statistics.jackknife import Replicates
from benchmarks.report.statistics.variance import Arm

DRAWS = 2_000


@dataclass(frozen=True)
class Choice:
    """A model at one grid, as something to choose.

    Args:
        name: for sentences.
        arm: measured at this grid alone.
        cost: in any unit, of one image; None where it is not known.
        model: equal for the grids of one trained model: they share their training runs.
        halves: [SPLITS, 2], means over seeds of the metric over halves of the samples.
    """

    name: str
    arm: Arm
    cost: float | None
    model: str
    halves: np.ndarray

    @property
    def value(self) -> float:
        return float(self.arm.values.mean())


def choice_of(
    name: str, seeds: Sequence[Replicates], units: int, cost: float | None, model: str, trained: bool = True
) -> Choice:
    """A choice out of the replicates of each seed at one grid."""
    values = np.array([[r.whole] for r in seeds])
    without = np.array([[r.without] for r in seeds])
    arm = Arm(values, without, units, trained, all_or_none=all(r.all_or_none for r in seeds))
    return Choice(name, arm, cost, model, np.mean([r.halves for r in seeds], axis=0))


@dataclass(frozen=True)
class Deviations:
    """Deviations whose products are the covariances of the choices.

    Args:
        samples: [C, K]; the sum of squares is the variance over samples.
        seeds: [C, R], a column each training run, 0 for the runs of other models.
        df: degrees of freedom of the noise of training, 0 where there is none to see.
    """

    samples: np.ndarray
    seeds: np.ndarray
    df: int

    def draw(self, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
        """Normal multipliers of all deviations, those of seeds with the tails of t: float64 [C, draws]."""
        rng = np.random.default_rng(seed)
        found = self.samples @ rng.standard_normal((self.samples.shape[1], draws))
        if self.df:
            tails = np.sqrt(rng.chisquare(self.df, draws) / self.df)
            found += self.seeds @ rng.standard_normal((self.seeds.shape[1], draws)) / tails
        return found


def deviations(choices: Sequence[Choice]) -> Deviations:
    """Of choices that were measured over the same samples.

    A model that was trained once has the noise of those that were trained several times (their pooled variance), as
    an arm of a comparison borrows it.

    Raises: ValueError for choices of other samples.
    """
    groups = {(c.arm.groups, c.arm.units) for c in choices}
    if len(groups) != 1:
        raise ValueError(f"choices of different samples: {groups}")
    left = np.stack([c.arm.without[:, 0].mean(0) for c in choices])
    count = left.shape[1]
    samples = (left - left.mean(1, keepdims=True)) * np.sqrt((count - 1) / count)
    models = {c.model: c.arm for c in choices if c.arm.trained}
    noisy = {m: arm.seeds for m, arm in models.items() if arm.seeds > 1}
    runs = {m: noisy.get(m, 1 if noisy else 0) for m in models}
    starts = dict(zip(runs, np.cumsum([0, *runs.values()])[:-1].tolist(), strict=True))
    seeds = np.zeros((len(choices), sum(runs.values())))
    known = [c.arm.values[:, 0].var(ddof=1) for c in choices if c.model in noisy]
    pooled = float(np.sqrt(np.mean(known))) if known else 0.0
    for row, choice in enumerate(choices):
        if choice.model in noisy:
            values = choice.arm.values[:, 0]
            own = (values - values.mean()) / np.sqrt(len(values) * (len(values) - 1))
            seeds[row, starts[choice.model] : starts[choice.model] + len(values)] = own
        elif choice.model in runs and noisy:
            seeds[row, starts[choice.model]] = pooled
    return Deviations(samples, seeds, sum(n - 1 for n in noisy.values()))
