"""Training of the detection task: stateless samples, per-example clipping, padding without effect, nothing held out."""

import os
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from detection_tools import TinyBackbone, drawn, model_of
from torch import nn

from backbones import build_backbone
from backbones.grids import GridSchedule
from benchmarks.engine.conformance import check_task
from benchmarks.engine.training.loop import Drawn, finetune
from benchmarks.engine.training.optimizers import parameter_groups
from tasks import TaskError, build_task
from tasks.contract import Batch, Recipe
from tasks.detection.boxes import box_bias
from tasks.detection.labels.training_set import collate_targets
from tasks.detection.model.detector import Detector, without_rescale
from tasks.detection.model.heads import FIXED_SIZE, DetectionHeads
from tasks.text.towers import CONTEXT, build_text_tower, encode_texts, encode_tokens, tokenize

NAMES = ("cup", "dog", "kite")  # rare, common, frequent; cup and dog have boxes, kite is known to be absent
GRID = (4, 4)


def toy(folder, **options):
    if not (folder / "toy").exists():
        drawn(folder / "toy", images=8, names=NAMES)
    return build_task("detection", root=folder, options={"data": "toy", "side": 48, "text": "tiny", **options})


def batch_of(task, count=4, epoch=0):
    data = Drawn(task.dataset("train"), 0)
    return task.collate([data[i, epoch] for i in range(count)])


def tokens_of(*names):
    return {int(t) for t in tokenize(names).flatten() if 0 < t < 49406}


def test_samples_are_a_function_of_their_generator(tmp_path):
    data = toy(tmp_path).dataset("train")
    first, again, other = (data.sample(1, torch.Generator().manual_seed(s)) for s in (5, 5, 6))
    assert torch.equal(first[0], again[0]) and not torch.equal(first[0], other[0])
    assert all(torch.equal(first[1][k], again[1][k]) for k in first[1])
    assert torch.equal(data[3][0], data.sample(3, torch.Generator().manual_seed(3))[0])
    for seed in range(8):
        image, targets = data.sample(2, torch.Generator().manual_seed(seed))
        assert image.shape == (3, 48, 48) and image.dtype == torch.uint8
        assert targets["labels"].shape == (len(targets["boxes"]), len(targets["tokens"]))
        assert targets["labels"].any(1).all() and (targets["boxes"] > 0).all() and (targets["boxes"] <= 1).all()


def test_held_out_categories_are_neither_boxes_nor_queries(tmp_path):
    rare = tokens_of("cup")
    for zero_shot in (True, False):
        data = toy(tmp_path, zero_shot=zero_shot, train_prompts="plain").dataset("train")
        asked = {int(t) for i in range(len(data)) for t in data[i][1]["tokens"].flatten()}
        assert bool(rare & asked) is not zero_shot
        assert bool(data.seen[0] > 0) is not zero_shot
        assert len(data.boxes[0]) == (1 if zero_shot else 2)


def test_per_example_clipping_equals_a_loop(tmp_path):
    task = toy(tmp_path, mosaics=[1, 0, 0])
    torch.manual_seed(0)
    start = Detector(TinyBackbone(), build_text_tower("tiny")).state_dict()

    def fresh():
        model = Detector(TinyBackbone(), build_text_tower("tiny"))
        model.load_state_dict(start)
        return model

    recipe = Recipe(steps=1, batch=4, lr=1.0, schedule="constant", clip=1.0, clip_per_example=True)
    schedule = GridSchedule("fixed", (GRID,))

    def trained(**changes):
        model = fresh()
        finetune(task, model, Recipe(**{**vars(recipe), **changes}), schedule, Accelerator(cpu=True))
        return {n: start[n] - p.detach() for n, p in model.named_parameters()}

    from benchmarks.engine.randomness import training_indices

    data = Drawn(task.dataset("train"), 0)
    expected = {n: torch.zeros_like(p) for n, p in fresh().named_parameters()}
    norms = []
    for place in training_indices(0, 0, 4, len(task.dataset("train"))):
        model = fresh().train()
        task.loss(model, task.collate([data[place]]), GRID)["loss"].backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        norms.append(float(torch.stack([v.norm() for v in gradients.values()]).norm()))
        for name, value in gradients.items():
            expected[name] += value * min(1.0, 1.0 / norms[-1]) / 4
    assert max(norms) > 1.5  # else nothing was clipped
    found = trained()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, atol=2e-6), name
    # the norm of the batch's mean is another recipe
    mixed = trained(clip_per_example=False)
    total = torch.stack([(found[n] - mixed[n]).norm() for n in found]).norm()
    assert total > 0.1 * torch.stack([v.norm() for v in found.values()]).norm()


def test_loss_of_a_batch_is_the_mean_of_its_images(tmp_path):
    task = toy(tmp_path)
    model, batch = model_of(task), batch_of(task)
    whole = task.loss(model, batch, GRID)
    parts = [task.loss(model, batch[i : i + 1], GRID) for i in range(4)]
    assert whole["count"] == 4
    for name in ("loss", "class", "l1", "giou"):
        mean = sum(float(p[name].detach()) for p in parts) / 4
        assert float(whole[name].detach()) == pytest.approx(mean, rel=1e-5)


def padded(batch, queries=0, instances=0):
    tokens, boxes, labels, present = (batch.targets[k] for k in ("tokens", "boxes", "labels", "present"))
    pad = nn.functional.pad
    targets = {
        "tokens": pad(tokens, (0, 0, 0, queries)), "boxes": pad(boxes, (0, 0, 0, instances)),
        "labels": pad(labels, (0, queries, 0, instances)), "present": pad(present, (0, instances)),
    }  # fmt: skip
    return Batch(batch.ids, batch.images, targets)


def gradients_of(task, model, batch):
    model.zero_grad()
    out = task.loss(model, batch, GRID)
    out["loss"].backward()
    return float(out["loss"].detach()), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_padding_has_no_effect_on_loss_and_gradients(tmp_path):
    task = toy(tmp_path)
    model, batch = model_of(task), batch_of(task)
    # one image with fewer queries, so that padding stays inside of the batch too
    batch.targets["tokens"][0, 1:] = 0
    batch.targets["labels"][0, :, 1:] = False
    loss, gradients = gradients_of(task, model, batch)
    again, others = gradients_of(task, model, padded(batch, queries=7, instances=3))
    assert again == pytest.approx(loss, rel=1e-6) and gradients.keys() == others.keys()
    assert all(torch.allclose(gradients[n], others[n], atol=1e-6) for n in gradients)
    assert (others["text.token_embedding.weight"][0] == 0).all()


def test_the_official_padding_quirk_makes_negatives_of_empty_queries(tmp_path):
    batch = batch_of(toy(tmp_path, mask_quirk=True))
    assert batch.targets["tokens"].shape[1] == 99 and (batch.targets["tokens"][..., 0] == 49406).all()
    padding = torch.tensor([49406, 49407] + [0] * 14)[: batch.targets["tokens"].shape[2]]
    assert (batch.targets["tokens"][:, -1] == padding).all()
    task = toy(tmp_path)
    model = model_of(task)
    plain, quirky = (task.loss(model, b, GRID) for b in (batch_of(task), batch))
    assert float(quirky["class"].detach()) > float(plain["class"].detach()) * 1.01


def test_categories_that_are_not_asked_for_get_no_gradient(tmp_path):
    task = toy(tmp_path, train_prompts="plain")
    data = task.dataset("train")
    data.seen[2] = 0  # kite is no random negative
    data.negatives = [frozenset()] * len(data)
    batch = task.collate([(i, *data[i]) for i in range(3)])
    model = model_of(task)
    _, gradients = gradients_of(task, model, batch)
    embedding = gradients["text.token_embedding.weight"]
    assert all((embedding[t] == 0).all() for t in tokens_of("kite") | tokens_of("cup"))
    assert all((embedding[t] != 0).any() for t in tokens_of("dog"))


def test_images_without_boxes_or_queries(tmp_path):
    task = toy(tmp_path)
    data = task.dataset("train")
    data.boxes = [b[:0] for b in data.boxes]
    data.labels = [x[:0] for x in data.labels]
    for seen in (data.seen, data.seen * 0):
        data.seen = seen
        if not seen.sum():
            data.negatives = [frozenset()] * len(data)
        batch = task.collate([(i, *data[i]) for i in range(2)])
        loss, gradients = gradients_of(task, model_of(task), batch)
        assert all(v.isfinite().all() for v in gradients.values())
        assert (loss > 0) is bool(seen.sum())


def test_reduced_precision_stops_before_class_head_and_losses(tmp_path):
    task = toy(tmp_path)
    model, batch = model_of(task), batch_of(task)
    with torch.autocast("cpu", torch.bfloat16):
        low = task.loss(model, batch, GRID)
        low["loss"].backward()
        inner = model.backbone(batch.images, GRID).map
    assert inner.dtype == torch.bfloat16 and low["loss"].dtype == torch.float32
    assert float(low["loss"].detach()) == pytest.approx(float(task.loss(model, batch, GRID)["loss"].detach()), rel=0.02)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_text_has_its_own_learning_rate_and_nothing_decays(tmp_path):
    task = toy(tmp_path)
    model = model_of(task)
    rates = {id(p): g["lr"] for g in parameter_groups(model, task.recipe) for p in g["params"]}
    assert {rates[id(p)] for p in model.text.parameters()} == {2e-4 * 0.01}
    others = [p for n, p in model.named_parameters() if not n.startswith("text.")]
    assert {rates[id(p)] for p in others} == {2e-4}
    assert task.recipe.weight_decay == 0 and task.recipe.clip_per_example and task.recipe.optimizer == "adam"


def test_drop_path_is_linear_in_depth_and_not_rescaled(tmp_path):
    task = toy(tmp_path, text="nano", text_drop_path=0.3)
    model = task.model(build_backbone("flexivit_nano", pretrained=False, drop_path=0.5))
    from timm.layers import DropPath

    image = [m for m in model.backbone.modules() if isinstance(m, DropPath)]
    text = [b.ls_2 for b in model.text.transformer.resblocks]
    assert [round(m.drop_prob, 3) for m in image[::2]] == [0.1, 0.2, 0.3, 0.4, 0.5]  # the first block has none
    assert [round(m.drop_prob, 3) for m in text] == [0, 0.1, 0.2, 0.3]
    for part in (image[-1], text[-1]):
        kept = part.train()(torch.ones(200, 3, 2))
        assert set(kept.flatten().tolist()) == {0.0, 1.0} and len(kept[:, 0, 0].unique()) == 2
        assert torch.equal(part.eval()(torch.ones(4, 3)), torch.ones(4, 3))
    assert not any(m.scale_by_keep for m in without_rescale(model.backbone).modules() if isinstance(m, DropPath))


def test_text_needs_only_as_many_positions_as_it_has():
    torch.manual_seed(0)
    tower = build_text_tower("tiny").eval()
    tokens = tokenize(["a photo of a cup", "dog", "", "dog", " ".join(["long"] * 40)])
    for rows in (tokens, tokens[:4], tokens[1:2]):
        assert torch.allclose(encode_tokens(tower, rows), tower(rows), atol=1e-6)
    assert tokens.shape[1] == CONTEXT and encode_tokens(tower, tokens[2:3]).isfinite().all()


def test_text_weights_come_from_a_detector_or_a_tuned_tower(tmp_path):
    tower = build_text_tower("tiny")
    state = {f"text.{k}": v for k, v in tower.state_dict().items()} | {"backbone.x": torch.zeros(1)}
    longer = torch.cat([state["text.positional_embedding"], torch.ones(16, 32)])
    torch.save({"model": {**state, "text.positional_embedding": longer}}, tmp_path / "tuned.pt")
    again = build_text_tower("tiny", str(tmp_path / "tuned.pt"))
    assert torch.equal(encode_texts(again.eval(), ["dog"]), encode_texts(tower.eval(), ["dog"]))
    with pytest.raises(TaskError, match="'positional_embedding' of text tower 'nano' has shape"):
        build_text_tower("nano", str(tmp_path / "tuned.pt"))
    with pytest.raises(TaskError, match="no file of text weights"):
        build_text_tower("tiny", str(tmp_path / "none.pt"))
    with pytest.raises(TaskError, match="nearest: .*nano"):
        build_text_tower("nanno")


def test_boxes_can_start_alike_at_every_grid():
    fixed = DetectionHeads(8, 8, size_bias="fixed")
    for grid in ((3, 5), (12, 12)):
        found = fixed.bias(*grid, torch.device("cpu")).sigmoid()
        assert torch.allclose(found[:, 2:], torch.full_like(found[:, 2:], FIXED_SIZE), atol=1e-3)
        assert torch.equal(found[:, :2], box_bias(*grid).sigmoid()[:, :2])
    with pytest.raises(TaskError, match="no size bias 'none'"):
        DetectionHeads(8, 8, size_bias="none")


def test_targets_are_padded_to_the_largest():
    few = {"tokens": torch.ones(2, 16).long(), "boxes": torch.ones(0, 4), "labels": torch.zeros(0, 2).bool()}
    many = {"tokens": torch.ones(5, 16).long(), "boxes": torch.ones(3, 4), "labels": torch.ones(3, 5).bool()}
    found = collate_targets([few, many])
    assert found["labels"].shape == (2, 3, 5) and found["present"].tolist() == [[False] * 3, [True] * 3]
    assert (
        found["tokens"][0, 2:].sum() == 0
        and (found["tokens"][1] == many["tokens"][:, : found["tokens"].shape[2]]).all()
    )
    assert found["widths"].largest() == (5, 3, found["tokens"].shape[2]) and found["widths"][:1].largest()[:2] == (2, 1)
    assert collate_targets([few])["boxes"].shape == (1, 1, 4)


def test_the_contract_holds(tmp_path):
    found = check_task(toy(tmp_path, zero_shot=False))
    assert found and all(line.startswith("ok") for line in found), found


def test_a_few_steps_at_random_grids_lower_the_loss(tmp_path):
    task = toy(tmp_path, zero_shot=False, mosaics=[1, 0, 0], train_prompts="plain")
    torch.manual_seed(0)
    model = Detector(TinyBackbone(), build_text_tower("tiny"))
    recipe = Recipe(steps=20, batch=4, lr=0.01, optimizer="adam", clip=1.0, clip_per_example=True)
    training = finetune(task, model, recipe, GridSchedule("random", ((4, 4), (6, 6), (8, 8))), Accelerator(cpu=True))
    assert sum(training.losses[-5:]) < 0.85 * sum(training.losses[:5])
    assert {"class", "l1", "giou"} <= set(training.values)


def test_mini_pack_trains_on_few_known_negatives():
    root = os.environ.get("FLEXIVIT_DATA")
    if not root or not (Path(root) / "detection").is_dir():
        pytest.skip("FLEXIVIT_DATA holds no detection pack")
    few, all_listed = (
        build_task("detection", root=root, options={"data": "lvis_coco80", "federated": f}).dataset("train")
        for f in (True, False)
    )
    assert max(map(len, few.negatives)) <= 8 and min(map(len, all_listed.negatives)) > 40
    assert not any(n & set(x.tolist()) for n, x in zip(few.negatives, few.labels, strict=True))
    rare = [i for i, n in enumerate(few.seen.tolist()) if n == 0]
    assert len(rare) == 6
    instances = 0
    for i in range(6):
        image, targets = few[i]
        assert image.shape == (3, 240, 240) and len(targets["tokens"]) >= 40
        instances += len(targets["boxes"])
    assert instances > 20
