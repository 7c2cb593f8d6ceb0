"""`matrices: bf16`: block matrices alone, in training alone, in no key where it is not asked for."""

import dataclasses

import pytest
import runner_tools  # makes the plug-in importable
import torch
from accelerate import Accelerator
from flexivit_toy import Toy
from tiny_backbone import Plain
from torch import nn

from backbones import build_backbone
from backbones.grids import GridSchedule
from benchmarks.engine.identity import candidate_key, cell_key
from benchmarks.engine.suite import Cell, cell_task
from benchmarks.engine.training.loop import finetune
from benchmarks.engine.training.matrices import EmulatedLinear, RoundedLinear, block_matrices, slow_products
from benchmarks.report.answers.questions import asked_of
from tasks import View
from tasks.contract import Recipe, TaskError

CELL = Cell("s", "toy", {"noise": 0.1}, {"steps": 12}, "tiny_backbone:tiny", {}, "4", (View(4, "pi"),), ("test",))
FOUR = GridSchedule("fixed", ((4, 4),))


def test_keys_are_those_that_rows_were_made_with() -> None:
    task = cell_task(CELL, ".")
    assert cell_key(CELL, task) == "801f8fde4152f94e"  # of the version before the field
    same = dataclasses.replace(CELL, recipe={**CELL.recipe, "matrices": "float32"})
    other = dataclasses.replace(CELL, recipe={**CELL.recipe, "matrices": "bf16"})
    assert cell_key(same, cell_task(same, ".")) == cell_key(CELL, task) != cell_key(other, cell_task(other, "."))
    told = dataclasses.asdict(task.recipe)
    assert task.recipe.decisive() == {n: v for n, v in told.items() if n not in ("matrices", "residual")}
    assert candidate_key("k", task.recipe) != candidate_key("k", dataclasses.replace(task.recipe, matrices="bf16"))


def test_operands_are_rounded_and_all_else_is_float32() -> None:
    torch.manual_seed(0)
    model, images = build_backbone("flexivit_nano", pretrained=False), torch.randn(4, 3, 120, 120)
    seen: dict[str, set[torch.dtype]] = {"attention": set(), "norm": set()}
    block = model.trunk.blocks[0]
    block.norm2.register_forward_pre_hook(lambda _, given: seen["norm"].add(given[0].dtype))
    block.attn.proj.register_forward_pre_hook(lambda _, given: seen["attention"].add(given[0].dtype))
    plain = model(images, 8).pooled
    with block_matrices(model, "bf16") as count:
        assert count == 4 * len(model.trunk.blocks)
        rounded = model(images, 8).pooled
        rounded.sum().backward()
        x = torch.randn(3, block.mlp.fc1.in_features)
        wanted = x.bfloat16() @ block.mlp.fc1.weight.bfloat16().T + block.mlp.fc1.bias.bfloat16()
        torch.testing.assert_close(block.mlp.fc1(x), wanted.float(), rtol=1e-2, atol=1e-2)
    assert seen == {"attention": {torch.float32}, "norm": {torch.float32}}
    assert all(p.grad.dtype == torch.float32 for p in model.parameters() if p.grad is not None)
    assert 0 < float((rounded - plain).detach().norm() / plain.norm()) < 0.02
    assert not any(isinstance(m, RoundedLinear | EmulatedLinear) for m in model.modules())
    assert torch.equal(model(images, 8).pooled, plain)
    with block_matrices(model, "float32"):
        assert torch.equal(model(images, 8).pooled, plain)


@pytest.mark.parametrize("each", [False, True])
def test_a_training_with_it_learns_as_one_without(each: bool) -> None:
    losses = {}
    for kind in ("float32", "bf16"):
        training = runner_tools.first_steps(clip_per_example=each, matrices=kind)
        assert not any("one pass an example" in note for note in training.notes)
        losses[kind] = training.losses
    assert losses["bf16"] != losses["float32"] and losses["bf16"] == pytest.approx(losses["float32"], rel=0.05)


def test_it_is_said_and_refused(tmp_path) -> None:
    with pytest.raises(TaskError, match="no matrices 'fp8'; nearest: "):
        Recipe().replaced({"matrices": "fp8"})
    with pytest.raises(TaskError, match="matrices bf16: the model trains no blocks"):
        task = Toy()
        model = task.model(Plain())  # has no blocks
        finetune(task, model, Recipe(steps=1, batch=8, matrices="bf16"), FOUR, Accelerator(cpu=True))
    _, rows = runner_tools.run_toy(tmp_path)
    assert {row.recipe["matrices"] for row in rows} == {"float32"}
    before = dataclasses.replace(rows[0], recipe={n: v for n, v in rows[0].recipe.items() if n != "matrices"})
    assert asked_of(before) == asked_of(rows[0])


@pytest.mark.parametrize("units", [True, False])
def test_a_cpu_without_bfloat16_units_is_told(units: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: units)
    note = slow_products("bf16", torch.device("cpu"), each=True)
    assert note == "" if units else "no bfloat16 units" in note
    for kind, device, each in (("float32", "cpu", True), ("bf16", "cuda", True), ("bf16", "cpu", False)):
        assert slow_products(kind, torch.device(device), each) == ""
    model = build_backbone("vit_nano_g8", pretrained=False)
    for each in (False, True):
        with block_matrices(model, "bf16", each):
            kinds = {type(m) for m in model.trunk.blocks.modules() if isinstance(m, nn.Linear)}
            assert kinds == {RoundedLinear if units or each else EmulatedLinear}


@pytest.mark.parametrize("bias", [True, False])
def test_products_of_rounded_operands_are_those_in_bfloat16(bias: bool) -> None:
    """Forward, and the gradients of input, weight and bias, against a product in bfloat16."""
    torch.manual_seed(0)
    found = {}
    layer, x, upstream = nn.Linear(96, 64, bias=bias), torch.randn(5, 40, 96), torch.randn(5, 40, 64)
    for kind in (RoundedLinear, EmulatedLinear):
        layer.__class__, given = kind, x.clone().requires_grad_()
        out = layer(given)
        grads = torch.autograd.grad(out, [given, *layer.parameters()], upstream)
        found[kind] = [out, *grads]
        assert all(t.dtype == torch.float32 for t in found[kind])
    layer.__class__ = nn.Linear
    exact = layer(x)
    for native, emulated in zip(*found.values(), strict=True):
        near = native.abs().clamp(min=native.abs().mean() / 10)
        assert float(((native - emulated).abs() / near).max()) <= 2**-7  # one step of bfloat16
        assert float((native == emulated).float().mean()) > 0.95
    assert not torch.equal(found[EmulatedLinear][0], exact)
    with torch.autocast("cpu", torch.bfloat16):
        layer.__class__ = EmulatedLinear
        assert layer(x).dtype == torch.bfloat16
