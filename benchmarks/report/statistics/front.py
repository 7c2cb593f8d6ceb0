"""Quality against cost: how often a choice would be on the front, had other samples and seeds been drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.report.statistics.draws import Choice, deviations

SOLID, FAINT = 0.5, 0.05


TIE = 1e-9  # of the metric's own unit: less is no difference


def front_shares(choices: Sequence[Choice], higher: bool = True) -> np.ndarray:
    """Share of draws [C] in which no other choice is at least as good for at most the same cost; 0 without a cost.

    From 0.5 a choice is drawn solid, from 0.05 faint.

    Raises: ValueError for choices of other samples.

    Example: `front_shares(choices) >= SOLID`
    """
    shares = np.zeros(len(choices))
    priced = [i for i, c in enumerate(choices) if c.cost is not None]
    if not priced:
        return shares
    kept = [choices[i] for i in priced]
    sign = 1 if higher else -1
    drawn = sign * (np.array([c.value for c in kept])[:, None] + deviations(kept).draw())
    costs = np.array([c.cost for c in kept], np.float64)
    for cost in np.unique(costs):
        own, cheaper = np.flatnonzero(costs == cost), costs < cost
        best = drawn[own].max(0)
        if cheaper.any():
            # sums in another order: what is equal may differ in the last bits
            best = np.where(best > drawn[cheaper].max(0) + TIE, best, np.inf)
        shares[np.array(priced)[own]] = (drawn[own] >= best).mean(1)
    return shares
