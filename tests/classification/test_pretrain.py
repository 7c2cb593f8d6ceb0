"""Training at a grid schedule: resume, data layouts, schedule and decay against official values."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from backbones import build_backbone
from benchmarks.experiments import pretrain
from benchmarks.experiments.pretrain_data import load_tiny_imagenet


def picture(seed: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def pack(tmp_path):
    folder = tmp_path / "pack"
    folder.mkdir()
    (folder / "tinyimagenet100_meta.json").write_text(json.dumps({"wnids": ["n1", "n2"]}))
    for split, count in (("train", 8), ("val", 4)):
        rows = {
            "image": [picture(i) for i in range(count)],
            "label": pa.array([i % 2 for i in range(count)], pa.int32()),
        }
        pq.write_table(pa.table(rows), folder / f"tinyimagenet100_{split}_00.parquet")
    return folder


def run(pack, out, *more: str) -> dict:
    base = ["flexivit_nano", "--data", str(pack), "--batch", "2", "--every", "1", "--warmup", "1", "--device", "cpu"]
    pretrain.main([*base, "--out", str(out), "--images", "6", *more])
    return json.loads((out / "flexivit_nano.json").read_text())


def test_killed_and_continued_equals_uninterrupted(pack, tmp_path, monkeypatch) -> None:
    whole = run(pack, tmp_path / "whole")
    save, calls = torch.save, []

    def dies(*arguments, **keywords):
        save(*arguments, **keywords)
        calls.append(1)
        if len(calls) == 2:  # the second checkpoint is written but not yet in place
            raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        run(pack, tmp_path / "cut")
    monkeypatch.setattr(torch, "save", save)
    assert run(pack, tmp_path / "cut")["top1"] == whole["top1"]
    one, two = (build_backbone(str(tmp_path / n / "flexivit_nano.safetensors")) for n in ("whole", "cut"))
    assert one.weights_hash() == two.weights_hash()
    assert not one.head.weight.equal(torch.zeros_like(one.head.weight))


def test_official_folder_is_read(tmp_path) -> None:
    for i, name in enumerate(("n2", "n1")):
        images = tmp_path / "train" / name / "images"
        images.mkdir(parents=True)
        (images / f"{name}_0.JPEG").write_bytes(picture(i))
    (tmp_path / "wnids.txt").write_text("n2\nn1\n")
    (tmp_path / "val" / "images").mkdir(parents=True)
    (tmp_path / "val" / "images" / "val_0.JPEG").write_bytes(picture(5))
    (tmp_path / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn2\t0\t0\t63\t63\n")
    train, val = load_tiny_imagenet(tmp_path, "train"), load_tiny_imagenet(tmp_path, "val")
    assert train.classes == ["n1", "n2"] and train.labels.tolist() == [0, 1] and val.labels.tolist() == [1]
    assert train.images.shape == (2, 3, 64, 64)
    with pytest.raises(ValueError, match="neither"):
        load_tiny_imagenet(tmp_path / "val", "train")


def test_schedule_is_the_official_cosine(golden) -> None:
    values = np.load(golden / "train.npz")
    found = [pretrain.learning_rate(int(s), 500, 100, 1.0) for s in values["sched/steps"]]
    assert np.allclose(found, values["sched/cos_500_100"], atol=1e-6)


def test_only_kernels_decay() -> None:
    model = build_backbone("flexivit_nano", pretrained=False)
    decayed, rest = pretrain.parameter_groups(model, 0.1)
    assert all(p.ndim > 1 for p in decayed["params"]) and rest["weight_decay"] == 0
    kept = {id(p) for p in rest["params"]}
    assert id(model.trunk.pos_embed) in kept and id(model.trunk.cls_token) in kept
    assert len(decayed["params"]) + len(rest["params"]) == len(list(model.parameters()))


def test_augmentation_stays_in_range_and_repeats() -> None:
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    one, two = (pretrain.augment(images, 120, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two) and one.shape == (4, 3, 120, 120)
    assert float(one.min()) >= 0 and float(one.max()) <= 255.01
