"""Which views of a trained model are shown side by side in its pictures."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from tasks.contract import Metric, View
from tasks.contract.view import Grid

PICTURED = 4  # grids side by side, where no more of them must be there


def pictured(found: Mapping[View, Mapping[str, Any]], metric: Metric, trained: Collection[Grid]) -> list[View]:
    """The coarsest and the finest grid, those of the training, the best measured one, and some between them.

    Args:
        found: metrics of each view.
        trained: grids of the training; those that were not evaluated are not shown.

    Returns: views by rising grid. Of several at one grid that must be there it is the first asked for, or the best.

    Example: `pictured({View(g): {"top1": g / 30} for g in (4, 8, 12, 15, 30)}, Metric("top1"), [(12, 12)])`
    """
    best = metric.best({v: m[metric.name] for v, m in found.items()})
    at: dict[Grid, View] = {best.grid: best}
    for view in found:
        at.setdefault(view.grid, view)
    chosen = {at[grid] for grid in (min(at), max(at), best.grid, *(g for g in trained if g in at))}
    order = sorted(found, key=lambda v: v.grid)
    for view in (order[i * (len(order) - 1) // (PICTURED - 1)] for i in range(PICTURED)):
        if len(chosen) < PICTURED:
            chosen.add(view)
    return [view for view in order if view in chosen]
