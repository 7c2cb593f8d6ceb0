"""Box AP of files with all that makes scorers differ: equal to `lvis` and `pycocotools`, by the rules of the file."""

import copy

import label_fuzz
import pytest

from tasks.data.boxes.protocols import Protocol
from tasks.detection.scoring.files import score_detections

SEEDS = range(200)  # for each protocol, in blocks
BLOCK = 25
COCO = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR", "ARs", "ARm", "ARl", "AR@1", "AR@10"]


def compare(found: list[dict], data: dict, protocol: Protocol | None = None) -> dict:
    ours = score_detections(found, data, protocol=protocol)
    theirs = score_detections(copy.deepcopy(found), copy.deepcopy(data), official=True, protocol=protocol)
    assert ours.protocol == theirs.protocol and set(ours.metrics) == set(theirs.metrics)
    for name, value in theirs.metrics.items():
        mine = ours.metrics[name]
        assert (mine is None) == (value is None), (name, mine, value)
        assert value is None or abs(mine - value) < 1e-6, (name, mine, value)
    return ours.metrics


@pytest.mark.parametrize("first", SEEDS[::BLOCK])
def test_lvis_files_by_the_rules_of_lvis(first):
    seen = []
    for seed in range(first, first + BLOCK):
        data = label_fuzz.labels(seed, lvis=True, texts=seed % 5 == 0)
        found = label_fuzz.detections(seed, data, 340 if seed % 20 == 3 else 0)  # the limit is 300 an image
        assert score_detections(found, data).protocol == "lvis"
        seen.append(compare(found, data)["AP"])
    assert any(value is not None and 0 < value < 1 for value in seen)


@pytest.mark.parametrize("first", SEEDS[::BLOCK])
def test_coco_files_by_the_rules_of_coco(first):
    seen = []
    for seed in range(first, first + BLOCK):
        data = label_fuzz.labels(seed, lvis=False, texts=seed % 5 == 0)
        found = label_fuzz.detections(seed, data, 150 if seed % 20 == 3 else 0)  # 100 of a category in an image
        assert score_detections(found, data).protocol == "coco"
        seen.append(compare(found, data)["AP"])
    assert any(value is not None and 0 < value < 1 for value in seen)


@pytest.mark.parametrize("lvis", [True, False])
def test_by_the_rules_of_the_other(lvis):
    other = Protocol.coco if lvis else Protocol.lvis
    for seed in range(15):
        data = label_fuzz.labels(seed, lvis)
        found = label_fuzz.detections(seed, data)
        compare(found, data, other)
        assert any("scored by the rules of" in note for note in score_detections(found, data, protocol=other).notes)


def crowded() -> tuple[list[dict], dict]:
    """What was scored wrongly once: a crowd, a box without area, 100 detections that are wrong before one that is
    right."""
    base = {"image_id": 1, "category_id": 1}
    data = {
        "images": [{"id": 1, "width": 400, "height": 400}],
        "categories": [{"id": 1, "name": "cup"}],
        "annotations": [
            {"id": 1, **base, "bbox": [0, 0, 40, 40], "area": 1600, "iscrowd": 0},
            {"id": 2, **base, "bbox": [200, 200, 90, 90], "area": 8100, "iscrowd": 1},
            {"id": 3, **base, "bbox": [100, 0, 40, 40], "area": 0, "iscrowd": 0},
        ],
    }
    crowd = [{**base, "bbox": [210, 210, 20, 20], "score": 0.99} for _ in range(3)]
    wrong = [{**base, "bbox": [300, 0, 9, 9], "score": 0.9} for _ in range(98)]
    return [*crowd, *wrong, {**base, "bbox": [0, 0, 40, 40], "score": 0.8}], data


def test_crowds_empty_areas_and_the_limit_of_coco():
    found, data = crowded()
    metrics = compare(found, data)
    assert list(metrics) == COCO and metrics["AP"] == 0  # the right one is the 102nd
    assert compare(found[:3] + found[-1:], data)["AR"] == 0.5  # the box without area counts
    assert compare(found[3:], data)["AP"] > 0
    by_lvis = compare(found, data, Protocol.lvis)
    assert by_lvis["AR"] == 1  # there it does not count, and 300 detections do


@pytest.mark.parametrize("lvis", [True, False])
def test_a_match_with_annotation_zero_is_a_match(lvis):
    data = label_fuzz.labels(1, lvis)
    data["annotations"] = [
        {"id": i, "image_id": data["images"][0]["id"], "category_id": data["categories"][0]["id"],
         "bbox": [50.0 * i, 0, 40, 40], "area": 1600.0}
        for i in range(3)
    ]  # fmt: skip
    found = [{k: a[k] for k in ("image_id", "category_id", "bbox")} | {"score": 0.5} for a in data["annotations"]]
    assert score_detections(found, data).metrics["AP"] == pytest.approx(1)
    official = score_detections(found, data, official=True)
    assert official.metrics["AP"] < 0.9
    assert any("id 0" in note for note in official.notes)


def test_unusual_boxes_are_scored_and_counted():
    data = label_fuzz.labels(2, lvis=False)
    image, category = data["images"][0]["id"], data["categories"][0]["id"]
    odd = {"beyond_image": [300, 10, 40, 20], "outside_image": [-50, 0, 10, 10], "negative_side": [9, 9, -4, 5]}
    found = [{"image_id": image, "category_id": category, "bbox": b, "score": 0.5} for b in odd.values()]
    compare(found, data)
    counts = score_detections(found, data).counts
    assert {k: counts[f"detections_{k}"] for k in odd} == dict.fromkeys(odd, 1)
    data["annotations"] = [
        {"id": i, "image_id": image, "category_id": category, "bbox": b, "area": 100.0}
        for i, b in enumerate(odd.values(), 1)
    ]
    compare(found, data)
    counts = score_detections(found, data).counts
    assert {k: counts[f"annotations_{k}"] for k in odd} == dict.fromkeys(odd, 1)
