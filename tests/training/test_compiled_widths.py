"""A compiled step sees one shape a grid: nothing is traced anew for another width, nothing falls back."""

import functools

import pytest
import torch
from accelerate import Accelerator

from backbones import build_backbone
from backbones.grids import parse_schedule
from benchmarks.engine.training.loop import finetune
from tasks import build_task
from tasks.contract import Recipe
from tasks.detection.labels.training_set import collate_targets


def queries(count: int, instances: int, words: int) -> dict[str, torch.Tensor]:
    tokens = torch.zeros(count, 16, dtype=torch.int64)
    tokens[:, :words] = torch.arange(1, words + 1)
    labels = torch.ones(instances, count, dtype=torch.bool)
    return {"tokens": tokens, "boxes": torch.full((instances, 4), 0.5), "labels": labels}


def test_one_width_costs_nothing_but_time() -> None:
    """The loss of targets that are padded to the widest there can be is that of trimmed ones."""
    task = build_task("detection", options={"data": "scenes", "text": "tiny", "side": 24})
    torch.manual_seed(0)
    model, images = task.model(build_backbone("flexivit_nano", pretrained=False)), torch.randn(2, 3, 24, 24)
    samples = [(i, images[i], queries(3 + i, 2, 5 + i)) for i in range(2)]
    shapes, losses = [], []
    for own in (task, task.compiled()):
        batch = own.collate(samples)
        shapes.append([batch.targets[k].shape for k in ("tokens", "boxes", "labels")])
        losses.append(own.loss(model, batch, (4, 4))["loss"].item())
    assert shapes == [[(2, 4, 6), (2, 2, 4), (2, 2, 4)], [(2, 99, 16), (2, 100, 4), (2, 100, 99)]]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert "widths" not in collate_targets([samples[0][2]], one_width=True)


@pytest.mark.slow
@pytest.mark.parametrize("task_name", ["detection", "retrieval"])
def test_nothing_is_traced_anew_for_another_width(task_name: str, tmp_path, monkeypatch) -> None:
    from torch._dynamo import config
    from torch._dynamo.utils import counters

    size = {"side": 120, "text": "tiny"} if task_name == "detection" else {"text": "tiny", "locked": False}
    task = build_task(task_name, root=tmp_path, options={"data": "scenes", **size})
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    model = task.model(build_backbone("flexivit_nano", pretrained=False))
    recipe = Recipe(steps=6, batch=2, lr=1e-4, optimizer="adamw", coupled=task.recipe.coupled)
    counters.clear()
    schedule = parse_schedule("random:4,5")
    with config.patch(fail_on_recompile_limit_hit=True):
        finetune(task, model, recipe, schedule, Accelerator(cpu=True), compile=True)
    first = counters["stats"]["unique_graphs"]
    assert first > 0
    longer = Recipe(steps=12, batch=2, lr=1e-4, optimizer="adamw", coupled=task.recipe.coupled)
    counters.clear()
    with config.patch(fail_on_recompile_limit_hit=True):
        finetune(task, model, longer, schedule, Accelerator(cpu=True), compile=True)
    assert counters["stats"]["unique_graphs"] <= first  # more batches of other widths bring no graph
