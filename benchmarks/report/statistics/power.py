"""What data can decide: the margin that these data could have decided, and the seeds or samples that would."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.report.statistics.jackknife import MAX_GROUPS
from benchmarks.report.statistics.variance import ALPHA, Parts, quantile

POWER = 0.8
MAX_SEEDS, MAX_SAMPLES = 1_000, 1_000_000_000


def decidable(parts: Parts, grids: int, alpha: float = ALPHA) -> float:
    """The margin at which two equal models get a yes with probability 0.8, were this grid the first of Holm's steps.

    Example: `decidable(verdict.difference.parts, grids=7)`
    """
    df = parts.df
    return (quantile(1 - alpha / (2 * grids), df) + quantile(POWER, df)) * float(np.sqrt(parts.total))


def rescaled(parts: Parts, units: float, seeds: int | None = None) -> Parts:
    """The components to be expected with as many samples, and with `seeds` training runs of each trained arm.

    What is of the seeds alone does not shrink with samples; their interaction shrinks with both.

    Example: `decidable(rescaled(parts, units=10_000, seeds=5), grids=7)`
    """
    fewer = parts.units / units
    # a variance that was lent by another arm is that of a single run: `counts` is 1 there
    share = [1.0 if seeds is None else count / seeds for count in parts.counts]
    # estimates, and so an interaction may come out larger than what contains it
    both = [min(i, s) for i, s in zip(parts.interaction, parts.seeds, strict=True)]
    excess = min(1.0, parts.samples / sum(both)) if sum(both) > 0 else 1.0
    both = [excess * b for b in both]
    crossed = [b * fewer * s for b, s in zip(both, share, strict=True)]
    alone = [(v - b) * s for v, b, s in zip(parts.seeds, both, share, strict=True)]
    samples = (parts.samples - sum(both)) * fewer + sum(crossed)
    counts = parts.counts if seeds is None else tuple(max(2, seeds) for _ in parts.counts)
    lenders = parts.lenders if seeds is None else tuple(i if own >= 0 else -1 for i, own in enumerate(parts.lenders))
    return Parts(
        samples, tuple(a + c for a, c in zip(alone, crossed, strict=True)), tuple(crossed), counts, lenders,
        max(2, min(MAX_GROUPS, int(units))), int(units),
    )  # fmt: skip


def needs_seeds(parts: Parts, margin: float, grids: int, alpha: float = ALPHA) -> int | None:
    """The fewest training runs of each model with which these samples could decide `margin`.

    None where they can already, and where 1,000 would not do.
    """
    if decidable(parts, grids, alpha) <= margin:
        return None
    first = max(2, *parts.counts)
    return _fewest(
        lambda seeds: decidable(rescaled(parts, parts.units, seeds), grids, alpha) <= margin, first, MAX_SEEDS
    )


def needs_samples(parts: Parts, margin: float, grids: int, alpha: float = ALPHA) -> int | None:
    """The fewest independent samples with which these training runs could decide `margin`.

    None where they can already, and where a thousand million would not do.
    """
    if decidable(parts, grids, alpha) <= margin:
        return None
    return _fewest(
        lambda units: decidable(rescaled(parts, units), grids, alpha) <= margin, max(2, parts.units), MAX_SAMPLES
    )


def _fewest(enough: Callable[[int], bool], low: int, high: int) -> int | None:
    """The smallest number from `low` to `high` that is enough, where more is never worse."""
    if not enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low
