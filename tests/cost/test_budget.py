"""Equal cost: MACs of a schedule, and how many steps a budget pays for."""

import pytest

from backbones import build_backbone
from backbones.cost import macs
from backbones.grids import parse_schedule
from benchmarks.cost.budget import cumulative_macs, steps_for_budget
from benchmarks.cost.macs import FORWARD_AND_BACKWARD


def test_a_budget_pays_for_its_own_steps_and_for_more_coarse_ones() -> None:
    model = build_backbone("flexivit_nano", pretrained=False)
    fixed, coarse = parse_schedule("10"), parse_schedule("curriculum-cost:4,6,10")
    spent = cumulative_macs(fixed, 40, 32, model)
    assert spent[-1] == 40 * 32 * FORWARD_AND_BACKWARD * macs(model, (10, 10))
    assert steps_for_budget(fixed, spent[-1], 32, model) == 40
    steps = steps_for_budget(coarse, spent[-1], 32, model)
    total = cumulative_macs(coarse, steps, 32, model)[-1]
    assert steps > 80 and 0.97 * spent[-1] < total <= spent[-1]
    assert cumulative_macs(coarse, steps + 1, 32, model)[-1] > spent[-1]
    with pytest.raises(ValueError, match="less than one step"):
        steps_for_budget(fixed, 1, 32, model)
