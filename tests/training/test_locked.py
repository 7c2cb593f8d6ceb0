"""What is not trained: groups of a recipe whose factor is 0, texts that are encoded once, towers kept in bfloat16."""

import copy
import dataclasses

import pytest
import runner_tools  # noqa: F401  (makes the plug-in importable)
import torch
from accelerate import Accelerator
from detection_tools import TinyBackbone, drawn
from flexivit_toy import Toy
from timm.models.vision_transformer import VisionTransformer
from tiny_backbone import tiny

from backbones import FlexiBackbone, build_backbone
from backbones.encoder import HALF
from backbones.grids import GridSchedule, parse_schedule
from benchmarks.engine.training.loop import Drawn, finetune
from benchmarks.engine.training.optimizers import build_optimizer
from benchmarks.engine.training.per_example.clipping import ExampleClipping
from benchmarks.engine.training.unused import lock
from tasks import Frozen, TaskError, build_task
from tasks.classification.models import Classifier, Locked
from tasks.contract import Recipe
from tasks.contract.frozen import keep_in_bfloat16
from tasks.detection.model.detector import Detector
from tasks.text import locked
from tasks.text.towers import build_text_tower

GRID = (4, 4)
LOCKED = Recipe(steps=6, batch=8, lr=0.05, warmup=1, optimizer="adamw", weight_decay=0.1, lr_groups={"backbone": 0.0})


def toy(recipe, **more):
    torch.manual_seed(0)
    task = Toy(options={"noise": 0.1})
    model = task.model(tiny(drop_path=0.2))
    before = copy.deepcopy(model.state_dict())
    finetune(task, model, recipe, parse_schedule("random:2,4"), Accelerator(cpu=True), **more)
    moved = {n for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    return model, moved


@pytest.mark.parametrize("change", [
    {}, {"optimizer": "adam"}, {"optimizer": "sgd"}, {"optimizer": "muon"}, {"ema": 0.9}, {"decay_kernels_only": False},
    {"clip_per_example": True}, {"accumulate": 2},
])  # fmt: skip
def test_what_is_locked_stays_bit_for_bit(change):
    model, moved = toy(dataclasses.replace(LOCKED, **change))
    assert moved == {n for n in model.state_dict() if n.startswith("head.")}


def test_the_longest_prefix_decides():
    _, moved = toy(dataclasses.replace(LOCKED, lr_groups={"backbone": 0.0, "backbone.trunk.norm": 0.5}))
    assert moved == {"head.weight", "head.bias", "backbone.trunk.norm.weight", "backbone.trunk.norm.bias"}


def test_no_layer_of_a_locked_module_is_dropped_and_the_head_trains_on():
    model, _ = toy(LOCKED)
    assert not any(m.training for m in model.backbone.modules()) and model.head.training


def test_all_locked_is_nothing_to_train():
    with pytest.raises(TaskError, match="nothing to train"):
        toy(dataclasses.replace(LOCKED, lr_groups={"backbone": 0.0, "head": 0.0}))


def test_a_locked_training_resumes_exactly(tmp_path):
    whole, _ = toy(LOCKED)

    class Killed(Exception):
        pass

    def kill(step, *_):
        if step == 4:
            raise Killed

    path = tmp_path / "c.pt"
    with pytest.raises(Killed):
        toy(LOCKED, checkpoint=path, every_seconds=0, progress=kill)
    resumed, _ = toy(LOCKED, checkpoint=path, every_seconds=0)
    pairs = zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def detection(folder, **options):
    drawn(folder / "toy", images=8)
    options = {"data": "toy", "side": 48, "text": "tiny", "zero_shot": False, **options}
    task = build_task("detection", root=folder, options=options)
    torch.manual_seed(0)
    model = Detector(TinyBackbone(), build_text_tower("tiny", drop_path=0.0))
    torch.nn.init.normal_(model.heads.classes.project.weight, std=0.1)  # at its start embeddings are of no length
    data = Drawn(task.dataset("train"), 0)
    return task, model, task.collate([data[i, 0] for i in range(6)])


@pytest.mark.parametrize("prompts", ["plain", "train"])
@pytest.mark.parametrize("quirk", [False, True])
def test_a_locked_text_tower_gives_the_loss_and_gradients_of_a_trained_one(tmp_path, prompts, quirk):
    task, model, batch = detection(tmp_path, train_prompts=prompts, mask_quirk=quirk)
    own = copy.deepcopy(model)
    lock(own.train(), Recipe(lr_groups={"text": 0.0}))
    seen = task.augment(own, batch, torch.Generator())
    assert "queries" in seen.targets and "queries" not in task.augment(model, batch, torch.Generator()).targets
    wanted, found = task.loss(model, batch, GRID), task.loss(own, seen, GRID)
    for name in ("loss", "class", "l1", "giou"):
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-6, atol=1e-6)
    wanted["loss"].backward()
    found["loss"].backward()
    for (name, a), b in zip(own.named_parameters(), model.parameters(), strict=True):
        if name.startswith("text."):
            assert a.grad is None and b.grad is not None
        else:
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-7)


def test_per_example_clipping_sees_no_tower_and_equals_the_loop(tmp_path):
    task, model, batch = detection(tmp_path)
    lock(model.train(), Recipe(lr_groups={"text": 0.0}))
    parameters = [p for g in build_optimizer(model, Recipe(lr_groups={"text": 0.0})).param_groups for p in g["params"]]
    assert {id(p) for p in parameters} == {id(p) for n, p in model.named_parameters() if not n.startswith("text.")}
    seen, notes = task.augment(model, batch, torch.Generator()), []
    clipping = ExampleClipping(task, model, None, 1.0, Accelerator(cpu=True), notes)
    clipping(seen, GRID, parameters)
    means = [torch.zeros_like(p) for p in parameters]
    for i in range(len(batch)):
        alone = task.augment(model, batch[i : i + 1], torch.Generator())
        gradients = torch.autograd.grad(task.loss(model, alone, GRID)["loss"], parameters, allow_unused=True)
        norm = torch.cat([g.flatten() for g in gradients if g is not None]).norm()
        for mean, g in zip(means, gradients, strict=True):
            mean += 0 if g is None else g / len(batch) * min(1.0, 1.0 / (float(norm) + 1e-6))
    assert not notes
    for parameter, mean in zip(parameters, means, strict=True):
        torch.testing.assert_close(parameter.grad, mean, rtol=1e-4, atol=1e-6)


def test_each_text_is_encoded_once_and_anew_when_the_tower_changes(tmp_path, monkeypatch):
    task, model, batch = detection(tmp_path, train_prompts="plain")
    lock(model, Recipe(lr_groups={"text": 0.0}))
    counts, encode = [], locked.encode_tokens
    monkeypatch.setattr(locked, "encode_tokens", lambda tower, rows: counts.append(len(rows)) or encode(tower, rows))
    first = task.augment(model, batch, torch.Generator()).targets["queries"]
    again = task.augment(model, batch, torch.Generator()).targets["queries"]
    assert counts == [3] and torch.equal(first, again)  # three categories, in six pictures
    with torch.no_grad():
        model.text.text_projection.mul_(2)
    torch.testing.assert_close(task.augment(model, batch, torch.Generator()).targets["queries"], 2 * first)
    assert counts == [3, 3]


def test_a_batch_that_asks_for_nothing_has_empty_queries(tmp_path):
    task, model, batch = detection(tmp_path)
    lock(model, Recipe(lr_groups={"text": 0.0}))
    none = dataclasses.replace(batch, targets={**batch.targets, "asked": locked.Asked(((),) * 6)})
    assert not task.augment(model, none, torch.Generator()).targets["queries"].any()


def test_a_detector_trains_under_a_locked_tower_with_any_clipping(tmp_path):
    for number, more in enumerate(({"clip_per_example": True}, {"clip_per_example": False})):
        task, model, _ = detection(tmp_path / str(number))
        before = copy.deepcopy(model.state_dict())
        recipe = Recipe(steps=3, batch=4, lr=0.01, optimizer="adam", lr_groups={"text": 0.0}, **more)
        training = finetune(task, model, recipe, GridSchedule("fixed", (GRID,)), Accelerator(cpu=True))
        assert not training.notes
        moved = {n.split(".")[0] for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
        assert moved == {"backbone", "heads"}


def pooled_by_attention() -> FlexiBackbone:
    trunk = VisionTransformer(
        img_size=56, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0, class_token=False,
        global_pool="map",
    )  # fmt: skip
    return FlexiBackbone(trunk, HALF)


@pytest.mark.parametrize("build", [lambda: build_backbone("flexivit_nano"), pooled_by_attention])
def test_features_are_the_same_to_the_bit(build) -> None:
    torch.manual_seed(0)
    encoder = build()
    grid = encoder.native_grid
    images = torch.randint(0, 256, (2, 3, *encoder.image_size), dtype=torch.uint8)
    model = Locked(encoder)
    with torch.autocast("cpu", torch.bfloat16):
        before = model(images, grid)
        saved = keep_in_bfloat16(model)
        assert torch.equal(model(images, grid), before)
    matrices = sum(m.weight.numel() for m in encoder.modules() if isinstance(m, torch.nn.Linear))
    assert saved >= 2 * matrices > encoder.embed_dim**2
    assert encoder.base_kernel.dtype == torch.float32 and keep_in_bfloat16(model) == 0


def test_what_is_trained_is_left_alone() -> None:
    model = Classifier(build_backbone("flexivit_nano"), 3)
    before = copy.deepcopy(model.state_dict())
    assert keep_in_bfloat16(model) == 0
    assert all(v.equal(before[k]) and v.dtype == before[k].dtype for k, v in model.state_dict().items())
    assert isinstance(Locked(build_backbone("flexivit_nano")).backbone, Frozen)
