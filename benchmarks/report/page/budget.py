"""Which choice to take for a budget, at each cost where the answer may change."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.report.answers.answer import Answer
from benchmarks.report.statistics.best import Affordable, within_budget

MOST = 200  # steps of the control; of more distinct costs, evenly many are kept


def budget_steps(one: Answer, costs: Sequence[float | None]) -> list[tuple[float, Affordable]]:
    """For each cost, the cheapest first, what is best among the choices that cost no more; equal neighbours once.

    Args:
        costs: of each of `one.choices`, in the unit of the budget.

    Example: `budget_steps(answer, [p.macs for p in answer.choices])[-1][1].measured`
    """
    options = [c for p in one.choices if (c := p.choice()) is not None]
    if one.best is None:
        return []
    distinct = sorted({cost for cost in costs if cost is not None})
    if len(distinct) > MOST:
        distinct = [distinct[i * (len(distinct) - 1) // (MOST - 1)] for i in range(MOST)]
    found: list[tuple[float, Affordable]] = []
    for cost in distinct:
        step = within_budget(options, one.best, costs, cost, one.rules)
        if step is not None and (not found or found[-1][1] != step):
            found.append((cost, step))
    return found
