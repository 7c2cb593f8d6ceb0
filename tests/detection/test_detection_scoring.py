"""The vectorised scorer is the official ones, on real labels and in the corners."""

import copy
import json
import os
from pathlib import Path

import numpy as np
import pytest

from tasks.data import documents
from tasks.data.boxes.protocols import Protocol
from tasks.detection.labels.annotations import read_truth
from tasks.detection.scoring import matching
from tasks.detection.scoring.average_precision import accumulate
from tasks.detection.scoring.files import score
from tasks.detection.scoring.resampling import judged_per_image, resampled_ap
from tasks.detection.scoring.results import Detections, read_results
from tasks.detection.scoring.rules import RULES


def made(seed: int, images: int = 12, categories: int = 6, partial: bool = True) -> dict:
    """Random labels with category ids from 1, ids out of order, some not exhaustive, some ignored."""
    rng = np.random.default_rng(seed)
    data = {"images": [], "annotations": [], "categories": []}
    for c in rng.permutation(categories):
        data["categories"].append({"id": int(c) * 3 + 1, "name": f"c{c}", "frequency": "rcf"[c % 3]})
    ids = [c["id"] for c in data["categories"]]
    for i in rng.permutation(images):
        present = rng.choice(ids, 3, replace=False).tolist()
        rest = [c for c in ids if c not in present]
        data["images"].append({
            "id": int(i) * 7 + 2, "width": 320, "height": 240, "neg_category_ids": rest[:2],
            "not_exhaustive_category_ids": present[:1] if partial and i % 3 == 0 else [],
        })  # fmt: skip
        for _ in range(int(rng.integers(0, 9))):
            side = np.round(np.exp(rng.uniform(1, 4.8, 2)), 1)
            corner = np.round(rng.uniform(0, 1, 2) * (np.array([320, 240]) - side), 1)
            data["annotations"].append({
                "id": len(data["annotations"]) + 1, "image_id": int(i) * 7 + 2,
                "category_id": int(rng.choice(present)), "bbox": [*corner.tolist(), *side.tolist()],
                "area": float(side.prod() * rng.uniform(0.5, 1)), **({"ignore": 1} if rng.random() < 0.1 else {}),
            })  # fmt: skip
    return data


def jittered(data: dict, seed: int, copies: int, spread: float = 0.08, noise: int = 20) -> list[dict]:
    """Detections around the boxes and anywhere; scores have two digits, so that many tie."""
    rng = np.random.default_rng(seed)
    ids = [c["id"] for c in data["categories"]]
    found = []
    for a in data["annotations"]:
        for _ in range(copies):
            x, y, w, h = a["bbox"]
            move = rng.normal(0, spread, 4) * [w, h, w, h]
            size = np.maximum(np.array([w, h]) + move[2:], 0.01)
            found.append({
                "image_id": a["image_id"],
                "category_id": a["category_id"] if rng.random() < 0.8 else int(rng.choice(ids)),
                "bbox": [float(x + abs(move[0]) * 0.5), float(y + abs(move[1]) * 0.5), *size.tolist()],
                "score": round(float(rng.random()), 2),
            })  # fmt: skip
    for i in data["images"]:
        for _ in range(noise):
            corner = rng.uniform(0, 1, 2) * [i["width"], i["height"]]
            found.append({"image_id": i["id"], "category_id": int(rng.choice(ids)), "score": round(rng.random(), 2),
                          "bbox": [*corner.tolist(), *rng.uniform(1, 40, 2).tolist()]})  # fmt: skip
    return [found[i] for i in rng.permutation(len(found))]


def agree(found: list[dict], data: dict, protocol: Protocol | None = None) -> dict:
    ours = score(found, data, protocol=protocol)
    theirs = score(copy.deepcopy(found), copy.deepcopy(data), official=True, protocol=protocol)
    assert list(ours) == ["AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AR"]
    for name, value in theirs.items():
        assert (ours[name] is None) == (value is None), name
        assert value is None or abs(ours[name] - value) < 1e-9, (name, ours[name], value)
    return ours


@pytest.mark.parametrize("seed", range(6))
def test_equals_lvis_on_random_labels_with_ties(seed):
    data = made(seed)
    ours = agree(jittered(data, seed, 6), data)
    assert 0.01 < ours["AP"] < 0.99


def test_equals_lvis_beyond_300_an_image():
    data = made(3, images=3)
    found = jittered(data, 1, 40, noise=400)
    capped = agree(found, data)
    top = RULES[Protocol.lvis].limit
    uncapped = matching.judge(read_results(found), read_truth(data), limit=10**6)
    precision, _ = accumulate(uncapped, read_truth(data))
    assert top == 300 and abs(precision[..., 0][precision[..., 0] > -1].mean() - capped["AP"]) > 1e-4


def test_small_shards_change_nothing(monkeypatch):
    data = made(4)
    found = jittered(data, 2, 8)
    whole = score(found, data)
    monkeypatch.setattr(matching, "PAIRS", 7)
    assert score(found, data) == whole


def test_empty_boxes_are_dropped_after_the_cut():
    data = made(5)
    found = jittered(data, 5, 3)
    for i in range(0, len(found), 4):
        found[i]["bbox"][2] = 0.0
    data["annotations"][0]["area"] = 0.0
    agree(found, data)


def test_no_detections_at_all_and_images_without():
    data = made(6)
    ours = agree([], data)
    assert ours["AP"] == 0 and ours["AR"] == 0
    some = [d for d in jittered(data, 6, 3) if d["image_id"] == data["annotations"][0]["image_id"]]
    assert agree(some, data)["AP"] > 0


def test_perfect_detections_score_one_and_category_one_counts():
    data = made(7, partial=False)
    data["annotations"] = [{**a, "ignore": 0} for a in data["annotations"]]
    found = [{**{k: a[k] for k in ("image_id", "category_id", "bbox")}, "score": 0.5} for a in data["annotations"]]
    assert agree(found, data)["AP"] == pytest.approx(1.0)
    without = [d for d in found if d["category_id"] != 1]
    assert len(without) < len(found) and agree(without, data)["AP"] < 0.9


def test_coco_labels_under_the_rules_of_lvis_are_exhaustive_and_crowds_excuse():
    data = {
        "images": [{"id": 1, "width": 100, "height": 100}],
        "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 40, 40], "area": 1600, "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [0, 0, 90, 90], "area": 8100, "iscrowd": 1},
        ],
    }
    wrong = {"image_id": 1, "category_id": 1, "bbox": [50, 50, 40, 40], "score": 0.9}
    right = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 40, 40], "score": 0.8}
    crowd = agree([wrong, right], data, Protocol.lvis)
    assert crowd["AP"] == pytest.approx(1.0) and crowd["APr"] is None
    data["annotations"].pop()
    assert agree([wrong, right], data, Protocol.lvis)["AP"] == pytest.approx(0.5)


def test_equals_lvis_on_real_labels():
    folder = os.environ.get("FLEXIVIT_DATA")
    path = Path(folder or "") / "detection" / "lvis_v0.5_real_val_subset.json"
    if not folder or not path.is_file():
        pytest.skip("FLEXIVIT_DATA holds no detection labels")
    data = json.loads(path.read_text())
    found = jittered(data, 0, 8, noise=60)
    ours = agree(found, data)
    assert 0.05 < ours["AP"] < 0.95 and None not in ours.values()


def test_streamed_files_equal_the_dicts(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "BLOCK", 37)
    monkeypatch.setattr(documents, "CHUNK", 5)
    data = made(8)
    found = jittered(data, 8, 2)
    (tmp_path / "r.json").write_text(json.dumps(found, indent=1))
    (tmp_path / "labels.json").write_text(json.dumps(data))
    assert score(tmp_path / "r.json", tmp_path / "labels.json") == score(found, data)
    (tmp_path / "r.json").write_text("[]")
    assert score(tmp_path / "r.json", data)["AP"] == 0


def repeated(data: dict, found: list[dict], times: np.ndarray) -> tuple[dict, list[dict]]:
    """Labels and detections with image i (by rising id) there `times[i]` times."""
    ids = sorted(i["id"] for i in data["images"])
    copies = {image: [image * 10 + k for k in range(n)] for image, n in zip(ids, times, strict=True)}
    labels = {
        "categories": data["categories"],
        "images": [{**i, "id": new} for i in data["images"] for new in copies[i["id"]]],
        "annotations": [{**a, "image_id": new} for a in data["annotations"] for new in copies[a["image_id"]]],
    }
    labels["annotations"] = [{**a, "id": i + 1} for i, a in enumerate(labels["annotations"])]
    return labels, [{**f, "image_id": new} for f in found for new in copies[f["image_id"]]]


@pytest.mark.parametrize("seed", range(4))
def test_resampled_ap_is_that_of_repeated_images(seed):
    data, rng = made(seed), np.random.default_rng(seed)
    found = [{**f, "score": float(rng.random())} for f in jittered(data, seed, copies=3)]
    truth = read_truth(data)
    kept = max(sum(f["image_id"] == i for f in found) for i in truth.image_ids)
    score_, category = np.zeros((2, len(truth.image_ids), kept))
    box = np.zeros((len(truth.image_ids), kept, 4))  # boxes without area do not count
    for n, image in enumerate(truth.image_ids):
        for k, f in enumerate(sorted((f for f in found if f["image_id"] == image), key=lambda f: -f["score"])):
            score_[n, k], box[n, k] = f["score"], f["bbox"]
            category[n, k] = np.searchsorted(truth.category_ids, f["category_id"])
    category = category.astype(int)
    columns = Detections(
        truth.image_ids.repeat(kept), truth.category_ids[category.ravel()], score_.ravel(), box.reshape(-1, 4)
    )
    own = judged_per_image(matching.judge(columns, truth), truth, kept)
    draws = rng.multinomial(len(score_), np.full(len(score_), 1 / len(score_)), 5)
    weights = np.concatenate([np.ones((1, len(score_))), draws])
    values = resampled_ap(score_, category, own["hit"], own["miss"], own["there"], weights)
    for times, value in zip(weights.astype(int), values, strict=True):
        labels, detections = repeated(data, found, times)
        assert value == pytest.approx(score(detections, labels, official=True)["AP"], abs=1e-9)
    assert np.ptp(values) > 0
