"""The detection task end to end on drawn pictures, at two grids; pictures are found where LVIS says."""

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from detection_tools import drawn, model_of
from PIL import Image

from tasks import TaskError, View, build_task
from tasks.data.sets.boxed import boxed_set
from tasks.data.sets.holdout import held_out
from tasks.detection.scoring.average_precision import score_fast
from tasks.detection.scoring.files import score_detections
from tasks.detection.scoring.results import Detections


@pytest.fixture
def task(tmp_path):
    drawn(tmp_path / "toy")
    return build_task("detection", root=tmp_path, options={"data": "toy", "side": 48})


def test_one_pass_over_two_grids_gives_rows(task):
    data = task.dataset("val")
    model, meter = model_of(task), task.meter("val")
    prepared = task.prepare(model, "val")
    assert prepared.shape == (3, 16)
    views = task.views([(4, 4), (6, 3)])
    for indices in ((0, 1, 2), (3, 4)):
        batch = task.collate([(i, *data[i]) for i in indices])
        for view in views:
            records = task.predict(model, batch, view.grid, prepared)
            count = min(300, view.grid[0] * view.grid[1] * 3)
            assert records["box"].shape == (len(indices), count, 4)
            edge = batch.targets["size"].flip(1)[:, None]
            assert (records["box"][..., :2] + records["box"][..., 2:] <= edge + 1e-4).all()
            meter.update(records, batch, view, "val")
    meter.merge()
    rows = meter.rows()
    assert [view.grid for view, _, _ in rows] == [(4, 4), (6, 3)]
    for _, numbers, _ in rows:
        assert 0 <= numbers["AP"] <= 1 and "APf" not in numbers and "APr" in numbers


def test_truth_as_records_scores_one(task):
    """Ids, categories and pixels come back from records as they went in."""
    meter, truth = task.meter("val"), task.truth("val")
    for i in range(5):
        mine = truth.image == i
        batch = task.collate([(i, *task.dataset("val")[i])])
        records = {
            "score": torch.ones(1, 2), "category": torch.from_numpy(truth.category[mine])[None].int(),
            "box": torch.from_numpy(truth.box[mine])[None],
        }  # fmt: skip
        if i < 4:
            meter.update(records, batch, View((4, 4)), "val")
    with pytest.raises(TaskError, match="4 of 5 images"):
        meter.rows()
    meter.update(records, batch, View((4, 4)), "val")
    ((_, numbers, _),) = meter.rows()
    assert numbers["AP"] == pytest.approx(1.0)


def as_coco(folder: Path, labels: dict) -> dict:
    """The drawn labels in COCO's form, one box of each picture a crowd, one empty."""
    lists = ("neg_category_ids", "not_exhaustive_category_ids")
    labels["images"] = [{k: v for k, v in one.items() if k not in lists} for one in labels["images"]]
    labels["categories"] = [{k: v for k, v in one.items() if k != "frequency"} for one in labels["categories"]]
    for i, one in enumerate(labels["annotations"]):
        one |= {"iscrowd": int(i % 4 == 1)} | ({"area": 0} if i == 4 else {})
    for split in ("train", "val"):
        (folder / f"{split}.json").write_text(json.dumps(labels))
    return labels


def test_an_own_folder_in_cocos_form_is_scored_by_cocos_rules(tmp_path):
    labels = as_coco(tmp_path / "toy", drawn(tmp_path / "toy"))
    task = build_task("detection", root=tmp_path, options={"data": "toy", "side": 48})
    assert task.card.protocol == "coco-v1"
    assert [m.name for m in task.card.metrics] == ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR"]
    data, meter = task.dataset("val"), task.meter("val")
    rng, results = np.random.default_rng(1), []
    for i in range(len(data)):
        ids = [task.truth("val").image_ids[i], [c["id"] for c in labels["categories"]]]
        box, category = rng.uniform(0, 20, (40, 4)) + [0, 0, 5, 5], rng.integers(0, 3, 40)
        own = [a for a in labels["annotations"] if a["image_id"] == ids[0]]
        box[:6], category[:6] = (
            [own[k % 2]["bbox"] for k in range(6)],
            [own[k % 2]["category_id"] - 1 for k in range(6)],
        )
        score = rng.uniform(0, 1, 40).astype(np.float32)
        records = {
            "score": torch.from_numpy(score)[None], "category": torch.from_numpy(category)[None].int(),
            "box": torch.from_numpy(box)[None],
        }  # fmt: skip
        meter.update(records, task.collate([(i, *data[i])]), View((4, 4)), "val")
        results += [
            {"image_id": int(ids[0]), "category_id": ids[1][c], "bbox": b, "score": s}
            for c, b, s in zip(category.tolist(), box.tolist(), score.astype(float).tolist(), strict=True)
        ]
    ((_, numbers, kept),) = meter.rows()
    official = score_detections(results, labels, official=True)
    assert official.protocol == "coco" and 0 < official.metrics["AP"] < 1
    for name in ("AP", "AP50", "AP75", "APs", "AR"):
        assert numbers[name] == pytest.approx(official.metrics[name], abs=1e-9)
    kept = {name: np.asarray(values) for name, values in kept.items()}
    assert task.resampled(kept, np.ones((1, len(data))))[0] == pytest.approx(numbers["AP"])
    assert score_detections(results, labels, protocol="lvis").metrics["AP"] != pytest.approx(numbers["AP"])


def test_the_best_hundred_of_a_picture_count_by_cocos_rules(tmp_path):
    as_coco(tmp_path / "toy", drawn(tmp_path / "toy"))
    task = build_task("detection", root=tmp_path, options={"data": "toy", "side": 48})
    model, data = model_of(task), task.dataset("val")
    batch = task.collate([(0, *data[0])])
    found = task.predict(model, batch, (8, 8), task.prepare(model, "val"))
    assert found["score"].shape == (1, 100)


def test_rules_are_those_of_the_card_or_of_the_form_that_val_has(tmp_path):
    assert {n: boxed_set(n, tmp_path).rules for n in ("lvis", "lvis_coco80", "scenes", "coco2017")} == {
        "lvis": "lvis", "lvis_coco80": "lvis", "scenes": "lvis", "coco2017": "coco"
    }  # fmt: skip
    labels, toy = drawn(tmp_path / "toy"), boxed_set("toy", tmp_path)
    assert toy.rules == "lvis" and build_task("detection", root=tmp_path, options={"data": "toy"}).rules == "lvis"
    as_coco(tmp_path / "toy", labels)
    assert toy.rules == "coco"  # what was replaced is read again
    (tmp_path / "toy" / "val.json").write_text("{]")
    assert toy.rules == "lvis" and boxed_set("nothing", tmp_path).rules == "lvis"


def test_minival_is_held_out_of_train_by_the_rule_of_all_sets(tmp_path):
    drawn(tmp_path / "toy", images=25)
    toy = boxed_set("toy", tmp_path)
    train, minival, val = (toy.load(split) for split in ("train", "minival", "val"))
    assert len(minival) == 2 and not set(train.names) & set(minival.names)
    assert sorted([*train.names, *minival.names]) == sorted(val.names)
    assert set(np.array(val.names)[held_out(val.names, 0.1)]) == set(minival.names)
    assert sorted(train.labels.image_ids) == train.labels.image_ids.tolist() and len(train.labels.box) == 46
    with pytest.raises(TaskError, match="has no split 'test'; it has: train, minival, val"):
        toy.load("test")


def test_coco_url_decides_and_file_name_is_second(tmp_path):
    url, name = "http://images.cocodataset.org/val2017/000007.jpg", "000007.webp"
    image = {"id": 7, "coco_url": url, "file_name": name, "width": 4, "height": 4}
    one = {"id": 1, "image_id": 7, "category_id": 1, "bbox": [0, 0, 2, 2], "area": 4, "iscrowd": 0}
    labels = {"images": [image], "annotations": [one], "categories": [{"id": 1, "name": "a"}]}

    def written(folder):
        folder.mkdir(exist_ok=True)
        (folder / "val.json").write_text(json.dumps(labels))
        return boxed_set(folder.name, tmp_path)

    with pytest.raises(TaskError, match=r"1 of 1 pictures that val\.json names are missing, the first is val2017/0000"):
        written(tmp_path / "none").load("val")
    tarred = written(tmp_path / "tarred")
    with tarfile.open(tmp_path / "tarred" / "images_00.tar", "w") as tar:
        info = tarfile.TarInfo("images/000007.webp")
        info.size = 6
        tar.addfile(info, io.BytesIO(b"in tar"))
    assert tarred.load("val").pictures.read(0) == b"in tar"
    folder = tmp_path / "folder"
    for place, called, content in (("images", name, b"second"), ("val2017", "000007.jpg", b"first")):
        (folder / place).mkdir(parents=True)
        (folder / place / called).write_bytes(content)
        assert written(folder).load("val").pictures.read(0) == content


def test_faults_are_named(task, tmp_path):
    with pytest.raises(TaskError, match="lvsi/train.json: no such file; 'lvsi' is no data set .*; nearest: lvis"):
        boxed_set("lvsi", tmp_path).load("train")
    with pytest.raises(TaskError, match="pad 2"):
        build_task("detection", options={"pad": 2})
    assert "lvis_v1_train.json" in str(build_task("detection", root=tmp_path).missing()[0])
    folder = tmp_path / "toy" / "images"
    Image.new("RGB", (10, 10)).save(folder / "000.png")
    with pytest.raises(TaskError, match=r"000\.png: is 10x10 px, its labels are for 40x60"):
        task.dataset("val")[4]
    (folder / "000.png").write_bytes(b"none")
    with pytest.raises(TaskError, match="cannot be decoded"):
        task.dataset("val")[4]


def test_mini_pack_pictures_fit_their_labels():
    root = os.environ.get("FLEXIVIT_DATA")
    if not root or not (Path(root) / "detection").is_dir():
        pytest.skip("FLEXIVIT_DATA holds no detection pack")
    task = build_task("detection", root=root, options={"data": "lvis_coco80", "text": "tiny"})
    assert not task.missing() and len(task.dataset("val")) == 800
    image, target = task.dataset("val")[400]
    assert image.shape == (3, 240, 240) and target["size"].max() <= 320
    truth = task.truth("val")
    found = Detections(
        truth.image_ids[truth.image], truth.category_ids[truth.category], np.ones(len(truth.image)), truth.box
    )
    assert score_fast(found, truth)["AP"] == pytest.approx(1.0)
