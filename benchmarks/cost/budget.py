"""What a schedule of grids costs, and how many steps a budget pays for: coarse-to-fine training at equal cost."""

from __future__ import annotations

from backbones import FlexiBackbone
from backbones.cost import macs
from backbones.grids import GridSchedule
from benchmarks.cost.macs import FORWARD_AND_BACKWARD


def cumulative_macs(schedule: GridSchedule, total: int, batch: int, encoder: FlexiBackbone) -> list[int]:
    """MACs of training (forward and backward) spent after each of `total` steps."""
    cost = {g: FORWARD_AND_BACKWARD * batch * macs(encoder, g) for g in schedule.grids}
    spent, sums = 0, []
    for step in range(1, total + 1):
        spent += cost[schedule.grid(step, total)]
        sums.append(spent)
    return sums


def steps_for_budget(schedule: GridSchedule, budget: int, batch: int, encoder: FlexiBackbone) -> int:
    """Most steps whose whole schedule costs at most `budget` MACs. Raises ValueError where one step costs more.

    Example: a fixed schedule's own cost gives its own number of steps back.
    """
    cheapest = FORWARD_AND_BACKWARD * batch * min(macs(encoder, g) for g in schedule.grids)
    low, high = 0, budget // cheapest
    while low < high:
        middle = (low + high + 1) // 2
        if cumulative_macs(schedule, middle, batch, encoder)[-1] <= budget:
            low = middle
        else:
            high = middle - 1
    if low < 1:
        raise ValueError(f"a budget of {budget} MACs is less than one step")
    return low
