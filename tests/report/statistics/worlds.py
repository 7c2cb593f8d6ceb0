"""Made-up models, and the same statistics by other means: analysis of variance, and loops that leave one out."""

import itertools

import numpy as np

from benchmarks.report.statistics.draws import Choice, choice_of
from benchmarks.report.statistics.jackknife import Groups, Replicates, deal_groups, replicates_of_sums
from benchmarks.report.statistics.variance import Arm, arm_of


def mean_replicates(values: np.ndarray, groups: Groups) -> Replicates:
    """Of the mean of values [N]."""
    terms = np.stack([values, np.ones(len(values))], 1)
    return replicates_of_sums(terms, lambda sums: sums[:, 0] / sums[:, 1], groups)


def arm(values: np.ndarray, groups: Groups | None = None, **more) -> Arm:
    """Of values [S, N] at one grid."""
    groups = groups or deal_groups(values.shape[1])
    return arm_of([[mean_replicates(seed, groups)] for seed in values], groups.units, **more)


def choice(name: str, values: np.ndarray, cost: float | None, model: str = "") -> Choice:
    groups = deal_groups(values.shape[1])
    return choice_of(name, [mean_replicates(seed, groups) for seed in values], groups.units, cost, model or name)


def runs(seed: int, accuracy: float, seeds: int = 3, samples: int = 300, noise: float = 0.3) -> np.ndarray:
    """0 or 1 [S, N]: pictures that are hard for all, and luck of each run."""
    rng = np.random.default_rng(seed)
    hard = np.random.default_rng(99).random(samples)  # the same pictures for every model
    own = rng.normal(0, noise, (seeds, samples)) + rng.normal(0, 0.05, (seeds, 1))
    return (hard + own < accuracy).astype(float)


def anova(values: np.ndarray) -> tuple[float, float, float]:
    """Variances of the mean of values [S, N] by a two-way layout without repeats: over samples, seeds, interaction."""
    seeds, samples = values.shape
    rest = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    interaction = (rest**2).sum() / ((seeds - 1) * (samples - 1)) if seeds > 1 else 0.0
    over_seeds = values.mean(1).var(ddof=1) / seeds if seeds > 1 else 0.0
    return values.mean(0).var(ddof=1) / samples, over_seeds, interaction / (seeds * samples)


def by_loops(function, arms: list[np.ndarray]) -> tuple[float, list[float], list[float]]:
    """The three jackknives of `function` of means, leaving out in plain loops; arms are [S, N]."""
    samples = range(arms[0].shape[1])

    def value(without_sample: int | None, arm: int | None = None, seed: int | None = None) -> float:
        means = []
        for i, values in enumerate(arms):
            kept = [s for s in range(len(values)) if i != arm or s != seed]
            columns = [n for n in samples if n != without_sample]
            means.append(float(np.mean([[values[s, n] for n in columns] for s in kept])))
        return function(*means)

    def spread(found: list[float]) -> float:
        return (len(found) - 1) / len(found) * sum((f - np.mean(found)) ** 2 for f in found)

    over_samples, over_seeds, both = spread([value(k) for k in samples]), [], []
    for i, values in enumerate(arms):
        seeds = range(len(values))
        if len(values) < 2:
            over_seeds.append(0.0)
            both.append(0.0)
            continue
        over_seeds.append(spread([value(None, i, s) for s in seeds]))
        table = {(s, k): value(k, i, s) for s, k in itertools.product(seeds, samples)}
        rows = {s: np.mean([table[s, k] for k in samples]) for s in seeds}
        columns = {k: np.mean([table[s, k] for s in seeds]) for k in samples}
        whole = np.mean(list(table.values()))
        squares = sum((table[s, k] - rows[s] - columns[k] + whole) ** 2 for s, k in table)
        both.append(squares * (len(seeds) - 1) / len(seeds) * (len(samples) - 1) / len(samples))
    return over_samples, over_seeds, both
