"""Equal cost: MACs of a schedule, and how many steps a budget pays for."""

import fault_tools
import pytest
import yaml

from backbones import build_backbone
from backbones.cost import macs
from backbones.grids import parse_schedule
from benchmarks.cost.budget import cumulative_macs, steps_for_budget
from benchmarks.cost.macs import FORWARD_AND_BACKWARD, estimate
from benchmarks.engine.runner import Runner, RunOptions
from benchmarks.engine.suite import cell_task, load_suite
from benchmarks.report.page.provenance import costs
from benchmarks.store import Store


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


def test_an_ensemble_costs_all_its_passes(tmp_path) -> None:
    fault_tools.class_folders(tmp_path / "own")
    both = {"grid": 4, "options": {"ensemble": [2, 6]}}
    entry = {"task": "classification", "options": {"data": "own/", "image_size": 24}, "recipe": fault_tools.RECIPE}
    suite = {
        "name": "sum", "backbones": ["flexivit_nano_scratch"], "train": [4], "eval": [2, 4, 6, both],
        "tasks": [{**entry, "recipe": {**fault_tools.RECIPE, "steps": 1, "candidates": []}}],
    }  # fmt: skip
    path, store = tmp_path / "sum.yaml", Store(tmp_path / "out")
    path.write_text(yaml.safe_dump(suite))
    cells = load_suite(str(path), tmp_path)
    assert Runner(cells, store, tmp_path, RunOptions(device="cpu"), [].append).run().ran
    rows = {str(row.view_options or row.eval_grid): row for row in store.rows()}
    alone = [rows[str(grid)].cost["macs"] for grid in (4, 2, 6)]
    ensemble = rows["{'ensemble': [2, 6]}"]
    assert ensemble.cost["macs"] == sum(alone) and ensemble.cost["grids"] == [4, 2, 6] and "grids" not in rows["4"].cost
    (cell,) = cells.cells
    passes = cell_task(cell, tmp_path).passes(cell.views[-1])
    assert estimate(cell, 0, 4, 1, 24, "cpu", None, [], passes)["macs"] == sum(alone)
    assert [line[2] for line in costs(store.rows(), {})] == ["2", "4", "4+2+6", "6"]
