"""Masks, boxes, captions and `check data` on data as people have them."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from data_tools import folders, picture
from PIL import Image

from benchmarks.prepare.check import check_sets
from tasks import build_task
from tasks.data.checks.inspection import inspect
from tasks.data.sets.boxed import boxed_set
from tasks.data.sets.captioned import captioned_set
from tasks.data.sets.labelled import labelled_set
from tasks.data.sets.masked import masked_set

# --- masks, boxes, captions


def test_a_class_that_no_training_mask_holds_is_an_error(tmp_path) -> None:
    """B9: masks 0/255 of two classes would be all background and all ignored."""
    for part in ("images", "annotations"):
        for split in ("train", "val"):
            for i in range(2):
                place = tmp_path / "own" / part / split / f"{i}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.zeros((6, 8) if part == "annotations" else (6, 8, 3), np.uint8)
                pixels[:2], pixels[4, i] = 255 if part == "annotations" else 9, 0 if part == "annotations" else 90 + i
                Image.fromarray(pixels).save(place)
    (tmp_path / "own" / "meta.json").write_text(json.dumps({"class_names": ["no", "yes"]}))
    (error,) = inspect(masked_set("own", tmp_path), ("train", "val")).errors
    assert "class 'yes' of 2 is in no training mask; the masks hold the values 0, 255; `values` in" in str(error)
    values = {"class_names": ["no", "yes"], "values": {"0": "no", "255": "yes"}}
    (tmp_path / "own" / "meta.json").write_text(json.dumps(values))
    assert inspect(masked_set("own", tmp_path), ("train", "val")).errors == []


def boxes(root: Path, split: str = "train", **change: object) -> dict:
    images = [{"id": i, "file_name": f"{split}{i}.png", "width": 8, "height": 6} for i in (1, 2)]
    for i, image in enumerate(images):
        picture(root / "own" / "images" / image["file_name"], i + 10 * len(split))
    one = {"id": 5, "image_id": 1, "category_id": 7, "bbox": [1, 1, 3, 2], "area": 6, "iscrowd": 0} | change
    labels = {"images": images, "annotations": [one], "categories": [{"id": 7, "name": "a"}]}
    (root / "own" / f"{split}.json").write_text(json.dumps(labels))
    return labels


@pytest.mark.parametrize("change, said", [
    ({"bbox": [5, 1, -3, 2]}, r"bbox \[5.0, 1.0, -3.0, 2.0\] has a negative side"),
    ({"bbox": [20, 1, 3, 2]}, "is outside the image"), ({"bbox": [1, 1, float("nan"), 2]}, "bbox must be four finite"),
    ({"image_id": 9}, "image_id 9 is not among the images"), ({"category_id": 8}, "category_id 8 is not among the"),
    ({"area": None}, "area must be a finite number"), ({"iscrowd": 3}, "iscrowd must be 0 or 1"),
])  # fmt: skip
@pytest.mark.parametrize("split", ["train", "val"])
def test_boxes_of_training_are_checked_as_those_of_evaluation(tmp_path, change, said, split) -> None:
    """B15"""
    for name in ("train", "val"):
        boxes(tmp_path, name, **(change if name == split else {}))
    task = build_task("detection", tmp_path, {"data": "own", "text": "tiny"})
    (problem,) = task.missing(("val",))
    assert str(problem).startswith(f"{tmp_path / 'own' / split}.json: annotation 0 (id 5): ")
    assert re.search(said, str(problem)), problem


def test_other_faults_of_box_labels(tmp_path) -> None:
    """B15: ids that occur twice, no categories, pictures of another size, boxes without area, two corners."""
    labels = boxes(tmp_path)
    path = tmp_path / "own" / "train.json"

    def problem(**change: object) -> str:
        path.write_text(json.dumps({k: v for k, v in (labels | change).items() if v is not None}))
        return "; ".join(map(str, inspect(boxed_set("own", tmp_path), ("train",)).errors))

    assert "image 1 (id 1): id 1 occurs twice" in problem(images=[labels["images"][0]] * 2)
    assert "has no 'categories', so it is not LVIS or COCO labels" in problem(categories=None)
    larger = [{**image, "width": 16} for image in labels["images"]]
    assert "train1.png: is 8x6 px, its labels are for 16x6" in problem(images=larger)
    one = labels["annotations"][0]
    corners = [{**one, "id": i, "bbox": [5, 3, 8, 6], "area": 9} for i in range(5)]
    path.write_text(json.dumps(labels | {"annotations": [*corners, {**one, "bbox": [1, 1, 0, 2], "area": 0}]}))
    findings = inspect(boxed_set("own", tmp_path), ("train",))
    assert any("1 of 6 boxes have no area: training drops them" in note for note in findings.notes)
    assert any("5 of 6 boxes reach beyond their picture: bbox is x, y, width, height" in n for n in findings.notes)
    (tmp_path / "own" / "images" / "train2.png").unlink()
    assert "1 of 2 pictures that train.json names are missing, the first is train2.png" in problem()


@pytest.mark.parametrize("sentences, read", [
    ([{"raw": "a dog"}], ["a dog"]), (["a dog", "a cat"], ["a dog", "a cat"]), ([{"tokens": ["a", "dog"]}], ["a dog"]),
    ("a dog", ["a dog"]), ([{"raw": None}], "sentences[0] must be a text, or an object with 'raw' or 'tokens', not"),
    ([], "sentences must be a list of sentences, not []"), (None, "sentences must be a list of sentences, not None"),
    ([3], "sentences[0] must be a text"), ([{"raw": " "}], "sentences[0] must be a text"),
])  # fmt: skip
def test_karpathy_json_of_others(tmp_path, sentences, read) -> None:
    """B17: all splits are looked at, not train alone."""
    entries = [{"filename": f"{s}.png", "split": s, "sentences": [{"raw": "x"}]} for s in ("train", "val", "test")]
    entries[2]["sentences"] = sentences
    for entry in entries:
        picture(tmp_path / "images" / entry["filename"])
    (tmp_path / "own.json").write_text(json.dumps({"images": entries}))
    problems = build_task("retrieval", tmp_path, {"data": "own.json", "text": "tiny"}).missing()
    if isinstance(read, list):
        assert problems == [] and captioned_set("own.json", tmp_path).load("test").captions == [read]
    else:
        (problem,) = problems
        assert f"own.json: image 2: {read}" in str(problem)


@pytest.mark.parametrize("form", ["token", "kaggle8k", "kaggle30k", "split column"])
def test_caption_files_as_they_are_downloaded(tmp_path, form) -> None:
    names = [f"{i}.jpg" for i in range(4)]
    for i, name in enumerate(names):
        picture(tmp_path / "flickr" / "Images" / name, i)
    head, row = {
        "token": ("", "{0}#{1}\tA dog , {2} ."), "kaggle8k": ("image,caption\n", '{0},"A dog , {2} ."'),
        "kaggle30k": ("image_name| comment_number| comment\n", "{0}| {1}| A dog , {2} ."),
        "split column": ("split,filename,caption\n", '{3},{0},"A dog , {2} ."'),
    }[form]  # fmt: skip
    splits = ["train", "train", "val", "test"]
    text = "\n".join(row.format(n, k, f"{n} {k}", splits[i]) for i, n in enumerate(names) for k in range(2))
    path = tmp_path / "flickr" / ("results.token" if form == "token" else "captions.txt")
    path.write_text(head + text)
    if form != "split column":
        (problem, *_) = captioned_set(f"flickr/{path.name}", tmp_path).problems(("train",))
        assert "says no splits; put lists of names" in str(problem)
        for called, chosen in (("train", names[:2]), ("dev", names[2:3]), ("test", names[3:])):
            (tmp_path / "flickr" / f"Flickr_8k.{called}Images.txt").write_text("\n".join(chosen))
    test = captioned_set(f"flickr/{path.name}", tmp_path).load("test")
    assert test.names == ["3.jpg"] and test.captions == [["A dog , 3.jpg 0 .", "A dog , 3.jpg 1 ."]]
    assert captioned_set(f"flickr/{path.name}", tmp_path).has_val


# --- check data


def test_check_data_looks_at_own_folders_and_files_as_a_run_would(tmp_path) -> None:
    """B18"""
    folders(tmp_path)
    shutil.copytree(tmp_path / "own", tmp_path / "classes")
    shutil.rmtree(tmp_path / "own")
    for split in ("train", "val"):
        boxes(tmp_path, split)
    states = {c.task: c for c in check_sets(["classes/", "own"], tmp_path)}
    assert {task: c.state for task, c in states.items()} == {"classification": "ok", "detection": "ok"}, states
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="is of no form that is read; it has: nothing; read are: train/"):
        list(check_sets(["empty"], tmp_path))
    torn = tmp_path / "classes" / "test" / "bee" / "1.png"
    torn.write_bytes(torn.read_bytes()[:60])
    (checked,) = check_sets(["classes/"], tmp_path)
    assert checked.state == "wrong" and f"{torn}: cannot be decoded" in checked.problems[0]


def test_pictures_that_train_and_test_share_are_counted_and_told(tmp_path) -> None:
    folders(tmp_path)
    own = tmp_path / "own"
    shutil.copy(own / "train" / "ant" / "1.png", own / "test" / "bee" / "0.png")
    findings = inspect(labelled_set("own/", tmp_path), ("train", "test"))
    assert findings.errors == []
    (note,) = findings.notes
    said = "1 of 6 pictures of test are in train too, byte for byte; the first is bee/0.png, in train ant"
    assert note.startswith(said)


def test_exif_is_told_and_not_followed(tmp_path) -> None:
    folders(tmp_path, suffix=".jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    place = tmp_path / "own" / "test" / "ant" / "0.jpg"
    with Image.open(place) as image:
        image.save(place, exif=exif)
    (note,) = inspect(labelled_set("own/", tmp_path), ("test",)).notes
    assert note == "1 of 6 pictures are turned by EXIF, which is not followed: stored pixels are read"
