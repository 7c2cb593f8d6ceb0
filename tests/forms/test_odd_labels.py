"""Masks and boxes as converters and annotation tools leave them: taken rightly, or one line with the nearest form."""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_tools import picture
from PIL import Image

from benchmarks.engine.plan import missing_of
from benchmarks.prepare.check import Checked, check_sets
from tasks import build_task
from tasks.contract import TaskError


def masked(root: Path, suffix: str = ".png", images: str = "images/{}", masks: str = "annotations/{}") -> Path:
    own = root / "own"
    for split in ("train", "val"):
        for i in range(3):
            picture(own / images.format(split) / f"{i}.jpg", i + 10 * len(split))
            place = own / masks.format(split) / f"{i}{suffix}"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.random.default_rng(i).integers(0, 2, (6, 8), np.uint8)).save(place)
    (own / "meta.json").write_text(json.dumps({"class_names": ["a b", "ü"]}))
    return own


def look(root: Path, name: str = "own") -> Checked:
    (found,) = check_sets([name], root)
    assert all("\n" not in text and text.isprintable() for text in (*found.problems, *found.notes))
    return found


@pytest.mark.parametrize("form", [
    {}, {"suffix": ".PNG"}, {"suffix": ".gif"}, {"suffix": ".bmp"}, {"images": "{}/images", "masks": "{}/masks"},
    {"images": "{}", "masks": "{}annot"}, {"images": "JPEGImages/{}", "masks": "SegmentationClass/{}"},
    {"images": "images/{}/city", "masks": "annotations/{}/city"},
])  # fmt: skip
def test_folders_of_masks_are_taken(tmp_path, form: dict) -> None:
    own = masked(tmp_path, **form)
    for part in ("images", "annotations"):
        if (own / part / "train").is_dir():
            (own / part / "train" / "._0.png").write_bytes(b"x"), (own / part / "train" / "Thumbs.db").write_bytes(b"x")
    (own / "meta.json").write_text("\ufeff" + (own / "meta.json").read_text())
    assert look(tmp_path).state == "ok"


ODD_MASKS: dict[str, tuple[Callable[[], Image.Image] | bytes, str]] = {
    "16 bits": (lambda: Image.fromarray(np.ones((6, 8), np.uint16)), "is a 16-bit image; label maps have 8 bits"),
    "colours": (lambda: Image.new("RGB", (8, 6)), "is a mode RGB image; .* mapped to classes by `palette` in"),
    "alpha": (lambda: Image.new("LA", (8, 6)), "is a mode LA image"), "empty": (b"", "the file is empty"),
    "no class": (lambda: Image.fromarray(np.full((6, 8), 7, np.uint8)), r"label 7 is out of range; labels are 0\.\.1"),
    "turned": (lambda: Image.new("L", (6, 8)), "is 6x8 .* is 8x6; .* save the picture upright"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD_MASKS)
def test_odd_masks_are_named(tmp_path, kind: str) -> None:
    made, said = ODD_MASKS[kind]
    place = masked(tmp_path) / "annotations" / "train" / "0.png"
    place.write_bytes(made) if isinstance(made, bytes) else made().save(place)
    (problem,) = look(tmp_path).problems
    assert re.match(f"{place}: .*{said}", problem), problem


def test_masks_that_lost_their_values_or_their_pictures(tmp_path) -> None:
    own = masked(tmp_path, ".jpg")
    assert "0.jpg: is JPEG, which does not keep values: a label map is a PNG" in look(tmp_path).problems[0]
    masked(tmp_path / "b")
    gone = tmp_path / "b" / "own" / "annotations" / "train" / "0.png"
    gone.unlink()
    (problem,) = look(tmp_path / "b").problems
    assert f"has no label map of {tmp_path}/b/own/images/train/0.jpg; nearest: " in problem and "option" not in problem
    (own / "meta.json").write_text(json.dumps({"class_names": ["a", "b"], "ignore_lable": 3}))
    assert "meta.json: 'ignore_lable' is no field of it; nearest: ignore_label" in look(tmp_path).problems[0]


def test_fields_that_others_add_to_meta_json_are_passed_over(tmp_path) -> None:
    meta = {"class_names": ["a", "b"], "class_names_ja": ["x", "y"], "num_classes": 2, "name": "own", "train": 3}
    (masked(tmp_path) / "meta.json").write_text(json.dumps(meta))
    assert look(tmp_path).state == "ok"


def test_a_known_set_of_which_a_part_is_there_is_wrong_before_a_run(tmp_path) -> None:
    """Twelve pictures of the 2,000 of ADE20k's validation were scored as if they were all."""
    root = tmp_path / "ade" / "ADEChallengeData2016"
    for split in ("training", "validation"):
        for i in range(12):
            picture(root / "images" / split / f"ADE_val_{i:08d}.jpg", i)
            place = root / "annotations" / split / f"ADE_val_{i:08d}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((6, 8), i, np.uint8)).save(place)
    found = look(tmp_path, "ade20k")
    assert found.state == "wrong" and "split 'validation'" not in found.problems[0]
    assert f"{root}: split 'train' of ade20k has 12 images, it must have 20,210" in found.problems[0]
    assert "split 'val' of ade20k has 12 images, it must have 2,000" in found.problems[1]
    blocked = missing_of(build_task("segmentation", tmp_path, {"data": "ade20k"}), ("val",))
    assert any("it must have 2,000" in line for line in blocked)


def test_the_nearest_form_of_labels_is_told(tmp_path) -> None:
    for part, suffix in (("images", ".jpg"), ("masks", ".png")):
        picture(tmp_path / "whole" / part / f"0{suffix}")
    picture(tmp_path / "yolo" / "images" / "train" / "0.jpg"), picture(tmp_path / "voc" / "JPEGImages" / "0.jpg")
    (tmp_path / "yolo" / "labels" / "train").mkdir(parents=True), (tmp_path / "voc" / "Annotations").mkdir()
    (tmp_path / "yolo" / "labels" / "train" / "0.txt").write_text("0 .5 .5 .1 .1")
    (tmp_path / "voc" / "Annotations" / "0.xml").write_text("<annotation/>")
    boxed(tmp_path)
    for name, said in (
        ("whole", "lie in folders of their split: images/train with annotations/train"),
        ("yolo", "YOLO's text labels are not read: write them as COCO's JSON"),
        ("voc", "VOC's XML is not read as boxes"), ("own/train.json", "holds the boxes of one split; name its folder"),
    ):  # fmt: skip
        with pytest.raises(TaskError, match=said):
            look(tmp_path, name)


Change = Callable[[dict[str, Any]], object]


def boxed(
    root: Path, change: Change = lambda labels: None, files: tuple[str, str] = ("train.json", "val.json"),
    images: str = "images", write: Callable[[dict], bytes] = lambda labels: json.dumps(labels).encode(),
) -> Path:  # fmt: skip
    for file in files:
        listed = [{"id": i, "file_name": f"{file[:2]}{i}.jpg", "width": 8, "height": 6} for i in (1, 2, 3)]
        for one in listed:
            picture(root / "own" / images / one["file_name"], one["id"] + sum(map(ord, file)))
        one = {"category_id": 1, "bbox": [1, 1, 3, 2], "area": 6, "iscrowd": 0}
        boxes = [{"id": i, "image_id": i, **one} for i in (1, 2, 3)]
        labels = {"images": listed, "annotations": boxes, "categories": [{"id": 1, "name": "a"}]}
        change(labels)
        place = root / "own" / file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(write(labels))
    return root / "own"


def each(part: str, **change: Any) -> Change:
    """Every object of a list changed, by values or by what functions make of it."""

    def changed(labels: dict[str, Any]) -> None:
        for one in labels[part]:
            one |= {k: v(one) if callable(v) else v for k, v in change.items()}

    return changed


TEXT_IDS = (lambda i: str(i["id"])), (lambda a: str(a["image_id"]))


@pytest.mark.parametrize("form", [
    {}, {"write": lambda labels: b"\xef\xbb\xbf" + json.dumps(labels).encode()},
    {"write": lambda labels: gzip.compress(json.dumps(labels).encode())}, {"files": ("train.json", "test.json")},
    {"files": ("train/_annotations.coco.json", "valid/_annotations.coco.json")},
    {"files": ("annotations/instances_train2017.json", "annotations/instances_val2017.json")},
    {"change": each("images", file_name=lambda i: f"images/{i['file_name']}")},
    {"change": each("images", file_name=lambda i: f"images\\{i['file_name']}")},
    {"change": lambda x: (each("images", id=TEXT_IDS[0])(x), each("annotations", image_id=TEXT_IDS[1])(x))},
    {"change": lambda x: x["annotations"][0].update(iscrowd=1)},
])  # fmt: skip
def test_files_of_boxes_are_taken(tmp_path, form: dict) -> None:
    boxed(tmp_path, **form)
    found = look(tmp_path)
    assert found.state == "ok" and found.sample.endswith("scored by COCO's rules"), found


def first(part: str, **values: Any) -> Change:
    return lambda labels: labels[part][0].update(values)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "NaN": ({"change": first("annotations", bbox=[1, float("nan"), 3, 2])}, "annotation 0 .* bbox must be four finite"),
    "outside": ({"change": first("annotations", bbox=[50, 50, 3, 2])}, r"annotation 0 \(id 1\): bbox .* is outside"),
    "negative": ({"change": first("annotations", bbox=[5, 5, -3, 2])}, "has a negative side"),
    "a text": ({"change": first("annotations", bbox="1 1 3 2")}, "bbox must be four finite numbers, not '1 1 3 2'"),
    "five": ({"change": first("annotations", bbox=[1, 1, 3, 2, 5])}, "bbox must be four finite numbers"),
    "ids of two kinds": ({"change": each("annotations", image_id=TEXT_IDS[1])}, "image_id '1' is not among the images"),
    "an image twice": ({"change": lambda x: x["images"].append(x["images"][0])}, r"image 3 .*: id 1 occurs twice"),
    "a box twice": ({"change": lambda x: x["annotations"].append(x["annotations"][0])}, "annotation 3 .* occurs twice"),
    "no categories": ({"change": lambda x: x.pop("categories")}, "has no 'categories'"),
    "no name": ({"change": first("categories", name="")}, "name must be a text that is not empty"),
    "no width": ({"change": lambda x: x["images"][0].pop("width")}, r"image 0 \(id 1\): has no 'width'"),
    "UTF-16": ({"write": lambda x: json.dumps(x).encode("utf-16")}, "is not JSON: not UTF-8 text"),
    "a list": ({"write": lambda x: json.dumps(x["annotations"]).encode()}, "is a list, not LVIS or COCO labels"),
    "lines": ({"write": lambda x: b"\n".join(json.dumps(a).encode() for a in x["annotations"])},
              "something follows after its end; of JSON lines make one object or list"),
    "empty": ({"write": lambda x: b""}, "is not JSON"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_odd_boxes_are_named_in_both_splits(tmp_path, kind: str) -> None:
    form, said = WRONG[kind]
    own = boxed(tmp_path, **form)
    for problem, file in zip(look(tmp_path).problems, ("train.json", "val.json"), strict=True):
        assert re.match(f"{own / file}: .*{said}", problem), problem


def test_pictures_that_labels_name_and_no_one_has(tmp_path) -> None:
    boxed(tmp_path, first("images", file_name="/etc/hostname"))
    assert "1 of 3 pictures that train.json names are missing, the first is /etc/hostname" in look(tmp_path).problems[0]
    boxed(tmp_path, each("images", file_name=lambda i: i["file_name"].upper()))
    assert "the first is TR1.JPG; there is tr1.jpg: capitals count" in look(tmp_path).problems[0]
    boxed(tmp_path, first("images", width=99))
    assert "tr1.jpg: is 8x6 px, its labels are for 99x6" in look(tmp_path).problems[0]


def test_what_is_allowed_and_doubtful_is_told(tmp_path) -> None:
    own = boxed(tmp_path, first("annotations", bbox=[1, 1, 0, 2], area=0))
    assert f"{own / 'train.json'}: 1 of 3 boxes have no area: training drops them" in look(tmp_path).notes
    boxed(tmp_path, lambda x: x["categories"].append({"id": 2, "name": "a"}))
    assert "several categories are named 'a' (the same query); 1 such names" in look(tmp_path).notes[0]
    boxed(tmp_path, lambda x: x["images"][1].update(file_name=x["images"][0]["file_name"]))
    assert "several images are named 'tr1.jpg' (the same picture)" in look(tmp_path).notes[0]
    boxed(tmp_path)
    val = json.loads((own / "val.json").read_text())
    val["categories"][0]["name"] = "z"
    (own / "val.json").write_text(json.dumps(val))
    assert "1 of 1 categories of val are none of train's, the first is 'z'" in look(tmp_path).notes
