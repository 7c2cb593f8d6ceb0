"""`check task` and `check backbone` find what violates the contract."""

from dataclasses import dataclass

import pytest
import runner_tools  # noqa: F401  (makes the plug-ins importable)
import torch
from flexivit_toy import Toy

from benchmarks.engine.conformance import check_backbone, check_task
from benchmarks.engine.conformance.changes import option_acts, resize_acts
from benchmarks.engine.conformance.training import by_count, two_processes
from benchmarks.engine.conformance.trying import Broken, shortened
from tasks import Options, build_task, option


def failed(lines: list[str]) -> list[str]:
    return [line.removeprefix("FAIL ") for line in lines if line.startswith("FAIL")]


def test_what_keeps_the_contract_passes() -> None:
    lines = check_task(Toy(), (2, 4), "tiny_backbone:tiny")
    assert not failed(lines) and len(lines) >= 13, lines
    for name in ("tiny_backbone:tiny", "tiny_backbone:Plain"):
        assert not failed(check_backbone(name)), check_backbone(name)
    assert any("declared indifferent" in line for line in check_backbone("tiny_backbone:Plain"))


def test_what_is_not_finite_or_not_there_is_told() -> None:
    told = failed(check_backbone("tiny_backbone:sick"))
    assert told[0] == "features at grid 4: Broken: pooled is not finite"
    assert failed(check_backbone("tiny_backbone:broken")) == ["it is built: ValueError: these weights are torn"]
    assert len(failed(check_backbone("no_such_package:Encoder"))) == 1


class Deaf(Toy):
    """Uses neither its option nor the backbone that the engine has bound."""

    @dataclass(frozen=True)
    class Options(Options):
        threshold: float = option(0.5, "eval")
        shade: int = option(0, "train")
        used: bool = option(False, "eval")

    def predict(self, model, batch, grid, prepared):
        pooled = model.backbone(batch.images, grid, resize="pi").pooled
        best = model.head(pooled).argmax(1)
        return {"best": best, "right": best == batch.targets, "sum": pooled.sum(1) + self.options.used}

    def loss(self, model, batch, grid):
        features = model.backbone(batch.images, grid).pooled
        centred = features - features.mean(0)  # looks across the batch
        return {"loss": torch.nn.functional.cross_entropy(model.head(centred), batch.targets), "count": len(batch)}


def test_what_changes_nothing_is_told_unless_it_is_declared(monkeypatch) -> None:
    few = shortened(Deaf(), 12)
    assert option_acts(few, "tiny_backbone:tiny", "test", "used", (2, 4)) == "True differs from False"
    for name in ("threshold", "shade"):
        with pytest.raises(Broken, match="change nothing; use it, or name it in `indifferent"):
            option_acts(few, "tiny_backbone:tiny", "test", name, (2, 4))
    from tiny_backbone import tiny

    model = few.model(tiny())
    with pytest.raises(AssertionError, match="does not use the bound backbone"):
        resize_acts(few, model, "test")
    monkeypatch.setattr(Deaf, "indifferent", lambda self: {"threshold": "none here", "resize": "one kernel"})
    assert "none here" in option_acts(few, "tiny_backbone:tiny", "test", "threshold", (2, 4))
    assert "one kernel" in resize_acts(few, model, "test")


def test_a_loss_that_looks_across_the_batch_is_found_out() -> None:
    from tiny_backbone import tiny

    torch.manual_seed(0)
    task = Deaf()
    data = task.dataset("train")
    batch, model = task.collate([(i, *data[i]) for i in range(4)]), task.model(tiny())
    with pytest.raises(Broken, match="is not"):
        by_count(task, model, batch, 4)
    assert by_count(Toy(), model, batch, 4) == ""
    task.recipe = task.recipe.replaced({"coupled": True})
    assert by_count(task, model, batch, 4) == "coupled: it is never split"


SCENES = {"data": "scenes"}
BOXES = {"text": "tiny", "train_prompts": "plain", "prompts": "plain", "mosaics": [1.0, 0.0, 0.0]}


@pytest.mark.slow  # each starts two processes that import torch
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("classification", SCENES),
        ("classification", {**SCENES, "protocol": "linear"}),
        ("segmentation", SCENES),
        ("detection", {**SCENES, **BOXES}),
        ("upstream", {**SCENES, "preset": "i21k_sup"}),
        ("retrieval", {**SCENES, "text": "tiny"}),
        ("retrieval", {**SCENES, "text": "tiny", "loss": "contrastive", "locked": False}),
    ],
)
def test_every_task_trains_on_two_processes_as_on_one(tmp_path, name: str, options: dict) -> None:
    assert two_processes(build_task(name, tmp_path, options), "flexivit_nano", (4, 8)) == ""


@pytest.mark.slow
def test_a_thorough_check_of_a_task() -> None:
    lines = check_task(Toy(), (2, 4), "tiny_backbone:tiny", thorough=True)
    assert not failed(lines), failed(lines)
    assert {"ok   two processes train as one", "ok   a resumed training equals an uninterrupted one"} <= set(lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("classification", {**SCENES, "protocol": "linear"}),
        ("segmentation", SCENES),
        ("retrieval", {**SCENES, "text": "tiny"}),
        ("image_retrieval", SCENES),
        ("upstream", {**SCENES, "preset": "i21k_sup"}),
        ("detection", {**SCENES, "text": "tiny"}),
    ],
)
def test_every_option_of_every_task_acts_or_is_declared_indifferent(tmp_path, name: str, options: dict) -> None:
    task = build_task(name, tmp_path, options)
    few = shortened(task, 24)
    for field in type(task).Options.__dataclass_fields__:
        option_acts(few, "flexivit_nano", "val" if "val" in task.card.splits else "test", field, (4, 8))
