"""`residual: bf16`: tokens pass the blocks in bfloat16 in training under autocast, and in nothing else."""

import dataclasses
from types import SimpleNamespace

import pytest
import runner_tools  # makes the plug-in importable
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from flexivit_toy import Toy
from tiny_backbone import Plain, tiny

from backbones import build_backbone
from backbones.grids import GridSchedule
from benchmarks.engine.bfloat16 import residual_stream
from benchmarks.engine.identity import cell_key
from benchmarks.engine.suite import Cell, cell_task
from benchmarks.engine.training.loop import finetune
from benchmarks.engine.training.trainer import Trainer
from benchmarks.store import Store
from tasks import View
from tasks.contract import Recipe, TaskError

FOUR = GridSchedule("fixed", ((4, 4),))
CELL = Cell("s", "toy", {"noise": 0.1}, {"steps": 12}, "tiny_backbone:tiny", {}, "4", (View(4, "pi"),), ("test",))


@pytest.fixture(autouse=True)
def own_precision():
    """A process has one precision otherwise."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_keys_are_those_that_rows_were_made_with() -> None:
    assert cell_key(CELL, cell_task(CELL, ".")) == "801f8fde4152f94e"  # of the version before the field
    other = dataclasses.replace(CELL, recipe={**CELL.recipe, "residual": "bf16"})
    assert cell_key(other, cell_task(other, ".")) != cell_key(CELL, cell_task(CELL, "."))


def test_the_stream_is_bfloat16_inside_and_nothing_is_left_of_it_outside() -> None:
    torch.manual_seed(0)
    model = Toy().model(build_backbone("flexivit_nano", pretrained=False))
    encoder, images = model.backbone, torch.randn(4, 3, 120, 120)
    seen: list[torch.dtype] = []
    for block in encoder.trunk.blocks:
        block.register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        usual = encoder(images, 8).pooled
        plain = set(seen)
        seen.clear()
        with residual_stream(model, "bf16", "bf16"):
            seen.clear()
            rounded = encoder(images, 8, taps=1)
            rounded.pooled.float().sum().backward()
        inside = set(seen)
        again = encoder(images, 8).pooled
    assert plain == {torch.float32} and inside == {torch.bfloat16} and "encode" not in encoder.__dict__
    assert all(t.dtype == torch.float32 for t in rounded.taps.values())
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in encoder.parameters() if p.grad is not None)
    assert torch.equal(again, usual)
    gap = float((rounded.pooled - usual).detach().norm() / usual.detach().norm())
    assert 0 < gap < 0.02
    with residual_stream(model, "float32", "no"):
        assert "encode" not in encoder.__dict__


@pytest.mark.parametrize("each", [False, True])
def test_a_training_with_it_learns_as_one_without(each: bool) -> None:
    losses = {}
    for kind in ("float32", "bf16"):
        training = runner_tools.first_steps("bf16", clip_per_example=each, residual=kind)
        assert not any("one pass an example" in note for note in training.notes)
        losses[kind] = training.losses
    assert losses["bf16"] != losses["float32"] and losses["bf16"] == pytest.approx(losses["float32"], rel=0.05)


@pytest.mark.slow  # a minute of the compiler's
def test_compiled_it_gives_what_it_gives_eagerly() -> None:
    losses = {}
    for compile in (False, True):
        torch.manual_seed(0)
        task = Toy()
        model = task.model(build_backbone("vit_nano_g8", pretrained=False))
        training = finetune(
            task, model, Recipe(steps=2, batch=4, lr=0.01, residual="bf16"), FOUR,
            Accelerator(cpu=True, mixed_precision="bf16"), compile=compile,
        )  # fmt: skip
        assert training.compiled is compile and not training.notes
        losses[compile] = training.losses
    assert losses[True] == pytest.approx(losses[False], rel=0.02)


def test_what_it_does_not_suit_is_refused_in_a_line() -> None:
    with pytest.raises(TaskError, match="no residual 'fp8'; nearest: "):
        Recipe().replaced({"residual": "fp8"})
    recipe = Recipe(steps=1, batch=8, residual="bf16")
    with pytest.raises(TaskError, match="residual bf16 needs training in bfloat16: --precision bf16"):
        finetune(Toy(), Toy().model(tiny()), recipe, FOUR, Accelerator(cpu=True))
    with pytest.raises(TaskError, match="Plain has no blocks; leave it float32"):
        AcceleratorState._reset_state(reset_partial_state=True)
        finetune(Toy(), Toy().model(Plain()), recipe, FOUR, Accelerator(cpu=True, mixed_precision="bf16"))
    scaled = Toy().model(build_backbone("timm:deit3_small_patch16_224", pretrained=False))
    with (
        pytest.raises(TaskError, match="blocks of this backbone give float32, as those with LayerScale do"),
        residual_stream(scaled, "bf16", "bf16"),
    ):
        pass
    assert "encode" not in scaled.backbone.__dict__


def test_rows_say_it(tmp_path) -> None:
    _, rows = runner_tools.run_toy(tmp_path)
    assert {row.recipe["residual"] for row in rows} == {"float32"}


def test_a_locked_towers_features_are_of_the_stream_that_they_were_made_in(tmp_path) -> None:
    """They are kept, and a training with the stream in float32 read those that were rounded."""

    def table(residual: str) -> object:
        task = SimpleNamespace(
            recipe=Recipe(residual=residual), seed=0, locked_encoder=lambda _: lambda images, grid: images,
            options=SimpleNamespace(stage=lambda _: {}),
        )  # fmt: skip
        own = SimpleNamespace(
            accelerator=Accelerator(cpu=True), store=Store(tmp_path), workers=0, _decoded=lambda _: 4,
            lines=SimpleNamespace(cell=print),
        )  # fmt: skip
        identity = SimpleNamespace(weights="w", train_data={"train": "d"})
        return Trainer._features(own, CELL, task, tiny(), identity).path((8, 8))

    assert table("float32") == table("float32") != table("bf16")
