"""Packs built from tiny files in the official forms, read back by the tasks' own readers."""

import io
import json
import tarfile

import numpy as np
import official_forms
import pyarrow.parquet as pq
import pytest
from data_tools import sized
from PIL import Image

from benchmarks.prepare import PACKS, prepare
from tasks import build_task
from tasks.contract import TaskError
from tasks.data.sets.captioned import captioned_set


def silent(text: str) -> None:
    pass


def test_tiny_imagenet(tmp_path) -> None:
    from benchmarks.studies.tiny_imagenet import load_tiny_imagenet

    source = official_forms.zipped(official_forms.tiny_imagenet(tmp_path), tmp_path / "tiny-imagenet-200.zip")
    said: list[str] = []
    files = prepare("tiny-imagenet", [source], tmp_path / "data", {"train": 4, "val": 2}, said.append)
    assert sorted(p.name for p in files) == [
        "tinyimagenet100_meta.json", "tinyimagenet100_train_00.parquet", "tinyimagenet100_val_00.parquet"
    ]  # fmt: skip
    assert any("unpacking" in s for s in said) and any("train: 8/8" in s for s in said)
    found = load_tiny_imagenet(tmp_path / "data" / "pretrain", "train")
    assert found.images.shape == (8, 3, 64, 64) and found.classes == ["n00000000", "n00000002"]
    assert np.bincount(found.labels).tolist() == [4, 4] and found.labels.tolist() != sorted(found.labels.tolist())
    meta = json.loads((tmp_path / "data" / "pretrain" / "tinyimagenet100_meta.json").read_text())
    assert meta["num_classes"] == 2 and meta["class_names"] == ["thing 0, stuff", "thing 2, stuff"]
    table = pq.read_table(files[2])
    assert table.schema.names == ["image", "label", "filename"] and str(table.schema.field("label").type) == "int32"
    assert Image.open(io.BytesIO(table["image"][0].as_py())).format == "WEBP"
    # byte-identical pictures count once: five of the six are different
    with pytest.raises(TaskError, match="train class n00000000 has 5 pictures, 6 are needed"):
        prepare("tiny-imagenet", [source], tmp_path / "other", {"train": 6, "val": 2}, silent)


def test_cars(tmp_path, monkeypatch) -> None:
    source = official_forms.cars(tmp_path)
    prepare("cars98", [source], tmp_path / "data", {"test": 2, "train": 3}, silent)
    sized(monkeypatch, "cars98", "classes", train=9, test=6)
    task = build_task("classification", tmp_path / "data", {"data": "cars98"})
    assert task.missing(("test",)) == [] and task.classes == 3
    train, test = task.labelled("train"), task.labelled("test")
    assert len(train) + len(task.labelled("minival")) == 9 and np.bincount(test.labels).tolist() == [2, 2, 2]
    assert not set(train.names) & set(test.names)
    assert train.classes == ("Maker Model 0", "Maker Model 2", "Maker Model 4")
    for name, label in zip(test.names, test.labels, strict=True):  # pictures go round the classes
        assert (int(name[:5]) - 1) % 6 == 2 * label
    sizes = {Image.open(io.BytesIO(test.read(i))).size for i in range(6)}
    assert sizes <= {(192, 128), (40, 30)} and task.dataset("test")[0][0].shape == (3, 120, 120)
    other = build_task("image_retrieval", tmp_path / "data", {"data": "cars98"})
    assert other.missing() == [] and len(other.dataset("test")) == 6


def test_imagewoof(tmp_path, monkeypatch) -> None:
    source = official_forms.tarred(official_forms.imagewoof(tmp_path), tmp_path / "imagewoof2.tgz")
    prepare("imagewoof9", [source], tmp_path / "data", {"train": 2, "test": 1}, silent)
    sized(monkeypatch, "imagewoof9", "classes", counts=True, test=9)
    task = build_task("classification", tmp_path / "data", {"data": "imagewoof9"})
    assert task.missing(("test",)) == [] and task.classes == 9
    assert sorted(task.labelled("test").labels.tolist()) == list(range(9))
    assert task.labelled("test").classes[0] == "Shih-Tzu"
    assert Image.open(io.BytesIO(task.labelled("train").read(0))).size == (128, 128)


def test_voc(tmp_path, monkeypatch) -> None:
    source = official_forms.voc(tmp_path)
    prepare("voc2012", [source], tmp_path / "data", {"train": 3, "val": 2}, silent)
    sized(monkeypatch, "voc21", "masks", train=3, val=2)
    task = build_task("segmentation", tmp_path / "data", {"data": "voc21"})
    assert task.missing() == [] and len(task.classes) == 21
    val = task.dataset("val")
    assert len(val) == 2 and len(task.dataset("train")) + len(task.dataset("minival")) == 3
    image, target = val[0]
    assert image.shape == (3, 240, 320) and set(target["label"].unique().tolist()) == {0, 1 + int(val.name(0)[-1]), 255}
    with tarfile.open(tmp_path / "data" / "segmentation" / "voc21_validation_00.tar") as tar:
        mask = next(m for m in tar.getnames() if m.startswith("voc21/annotations/validation/2008_"))
        assert Image.open(tar.extractfile(mask)).mode == "P"  # the palette is kept


def test_camvid(tmp_path, monkeypatch) -> None:
    sizes = {"train": 3, "val": 1, "test": 2}
    source = official_forms.camvid(tmp_path, sizes)
    prepare("camvid", [source.parent], tmp_path / "data", sizes, silent)
    sized(monkeypatch, "camvid11", "masks", **sizes)
    task = build_task("segmentation", tmp_path / "data", {"data": "camvid11"})
    assert task.missing() == [] and [len(task.dataset(s)) for s in ("train", "minival", "val", "test")] == [2, 1, 1, 2]
    image, target = task.dataset("test")[1]
    assert image.shape == (3, 240, 320) and target["label"].unique().tolist() == [*range(11), 255]
    with pytest.raises(TaskError, match="train has 3 pictures, 367 are needed"):
        prepare("camvid", [source], tmp_path / "other", say=silent)


def test_flickr8k(tmp_path, monkeypatch) -> None:
    sizes = {"train": 5, "val": 2, "test": 3}
    source = official_forms.flickr8k(tmp_path, {"train": 7, "val": 3, "test": 3})
    prepare("flickr8k", [source], tmp_path / "data", sizes, silent)
    sized(monkeypatch, "flickr8k", "captions", **sizes)
    task = build_task("retrieval", tmp_path / "data", {"data": "flickr8k"})
    assert task.missing() == [] and task.fingerprint("train")
    found = captioned_set("flickr8k", tmp_path / "data").load("test")
    assert found.names == ["0_test.jpg", "1_test.jpg", "2_test.jpg"]
    assert found.captions[1][4] == "A test picture , number 1 , said 4 times ."
    assert Image.open(io.BytesIO(found.read(0))).size == (160, 160)
    listed = json.loads((tmp_path / "data" / "retrieval" / "dataset_flickr8k.json").read_text())["images"]
    assert [i["imgid"] for i in listed] == list(range(10)) and {i["split"] for i in listed} == set(sizes)


def test_coco(tmp_path, monkeypatch) -> None:
    source = official_forms.coco(tmp_path)
    archives = [
        official_forms.zipped(source / "val2017", tmp_path / "val2017.zip"),
        official_forms.zipped(source / "annotations", tmp_path / "annotations_trainval2017.zip"),
    ]
    prepare("coco", archives, tmp_path / "data", {"train": 5, "val": 3}, silent)
    sized(monkeypatch, "lvis_coco80", "boxes", train=5, val=3)
    task = build_task("detection", tmp_path / "data", {"data": "lvis_coco80", "text": "tiny"})
    assert task.missing() == [] and task.fingerprint("train")
    val = task.dataset("val")
    assert len(val) == 3 and val[0][0].shape == (3, 240, 240) and val[0][1]["size"].tolist() == [240, 320]
    for split in ("train", "val"):
        labels = json.loads((tmp_path / "data" / "detection" / f"lvis_coco80_{split}.json").read_text())
        truth = task.truth(split)
        assert len(truth.names) == 4 and all(c["frequency"] == "r" for c in labels["categories"])
        for box in labels["annotations"]:
            assert box["bbox"][1:] == [10.0, 100.0, 50.25] and box["area"] == 5025.0  # half of 640x480
        for image in labels["images"]:
            own = {b["category_id"] for b in labels["annotations"] if b["image_id"] == image["id"]}
            crowd = {3} if image["id"] == 7 else set()
            assert image["not_exhaustive_category_ids"] == sorted(crowd)
            assert set(image["neg_category_ids"]) == {1, 2, 3, 90} - own - crowd
    sized(monkeypatch, "coco_val2017_subset", "captions", train=5, test=3)
    found = captioned_set("coco_val2017_subset", tmp_path / "data").load("test")
    assert len(found) == 3 and all(len(c) == 5 for c in found.captions) and found.captions[0][0][-1] == "0"
    assert sorted(n[:12] for n in found.names) == sorted(n[-16:-4] for n in task.boxed("val").names)


def test_the_same_download_gives_the_same_bytes(tmp_path) -> None:
    source = official_forms.voc(tmp_path)
    for name in ("one", "two"):
        prepare("voc21", [source], tmp_path / name, {"train": 2, "val": 2}, silent)
    for path in sorted((tmp_path / "one").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


def test_every_pack_says_where_its_download_is() -> None:
    assert all(p.source.startswith("http") and p.needs and sum(p.sizes.values()) for p in PACKS.values())
