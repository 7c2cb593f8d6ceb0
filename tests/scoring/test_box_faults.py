"""Faults of label and result files: one line that names file, place and field, never a traceback or a number."""

import copy
import json

import label_fuzz
import pytest
from front_door import call

from tasks.data.errors import DataError, Missing, Wrong
from tasks.detection.scoring.files import score, score_detections

IDS = [1.7, True, None, [], {}, float("nan")]
NUMBERS = ["1", None, True, [1.0], {}, float("nan"), float("inf"), -float("inf"), 10**400]
BOXES = [[], [1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 3, None], [1, 2, 3, "4"], [1, 2, True, 4], [1, 2, float("nan"), 4],
         [1, 2, 1e200, 1e200], None, "1,2,3,4", {"x": 1}, 7]  # fmt: skip
TEXTS = [None, "", " ", 3, [], True]
SIZES = [None, 0, -3, 2.5, "320", True, float("inf")]
LISTS = [None, 3, "1", {}, [None], [1.5], [True], [[1]], [10**9]]
GROUPS = [None, "x", "", 1, True, ["r"]]
FLAGS = [None, 2, -1, 0.5, "1", []]
LABELS = {
    ("images", "id"): IDS, ("images", "width"): SIZES, ("images", "height"): SIZES,
    ("images", "neg_category_ids"): LISTS, ("images", "not_exhaustive_category_ids"): LISTS,
    ("categories", "id"): IDS, ("categories", "name"): TEXTS, ("categories", "frequency"): GROUPS,
    ("annotations", "id"): IDS, ("annotations", "image_id"): [*IDS, 10**6, "7"],
    ("annotations", "category_id"): [*IDS, 10**6, "7"], ("annotations", "bbox"): BOXES,
    ("annotations", "area"): NUMBERS, ("annotations", "ignore"): FLAGS,
}  # fmt: skip
RESULTS = {
    "image_id": [*IDS, 10**6, "7", 2**63, 10**30, -(10**30)],
    "category_id": [*IDS, 10**6, "7", 2**64], "bbox": BOXES, "score": NUMBERS,
}  # fmt: skip
REQUIRED = [k for k in LABELS if k[1] not in ("area", "ignore")]
WORDS = {"images": "image", "categories": "category", "annotations": "annotation"}


def one_line(error: DataError, *words: str) -> None:
    text = str(error)
    assert "\n" not in text and len(text) < 400, text
    assert all(word in text for word in words), (text, words)


@pytest.fixture
def files(tmp_path):
    """Labels and results that are good."""
    data = label_fuzz.labels(21, lvis=True)
    found = label_fuzz.detections(21, data)
    assert len(data["annotations"]) > 3 and len(found) > 3 and len(data["images"]) > 1
    write(tmp_path, data, found)
    score(tmp_path / "results.json", tmp_path / "labels.json")
    return tmp_path, data, found


def write(folder, data, found):
    (folder / "labels.json").write_text(json.dumps(data))
    (folder / "results.json").write_text(json.dumps(found))


def refused(folder, *words: str) -> None:
    for official in (False, True):
        with pytest.raises(Wrong) as caught:
            score(folder / "results.json", folder / "labels.json", official=official)
        one_line(caught.value, *words)


@pytest.mark.parametrize(("part", "field"), LABELS)
def test_wrong_values_of_labels(files, part, field):
    folder, good, found = files
    for value in LABELS[part, field]:
        data = copy.deepcopy(good)
        data[part][1][field] = value
        write(folder, data, found)
        refused(folder, "labels.json", f"{WORDS[part]} 1", field)


@pytest.mark.parametrize(("part", "field"), REQUIRED)
def test_missing_fields_of_labels(files, part, field):
    folder, data, found = files
    del data[part][1][field]
    write(folder, data, found)
    refused(folder, "labels.json", f"{WORDS[part]} 1", f"has no '{field}'")


@pytest.mark.parametrize("part", WORDS)
@pytest.mark.parametrize("value", [None, 3, "x", {}, [], [3], [None], [[]]], ids=str)
def test_wrong_lists_of_labels(files, part, value):
    folder, data, found = files
    write(folder, data | {part: value}, found)
    refused(folder, "labels.json", part if not value or value in (3, "x") else WORDS[part])
    del data[part]
    write(folder, data, found)
    refused(folder, "labels.json", f"has no '{part}'")


@pytest.mark.parametrize("field", RESULTS)
def test_wrong_values_of_results(files, field):
    folder, data, good = files
    for value in RESULTS[field]:
        found = copy.deepcopy(good)
        found[2][field] = value
        write(folder, data, found)
        refused(folder, "results.json", "result 2", field)
    found = copy.deepcopy(good)
    del found[2][field]
    write(folder, data, found)
    refused(folder, "results.json", "result 2", f"has no '{field}'")


@pytest.mark.parametrize("part", WORDS)
def test_ids_that_occur_twice(files, part):
    folder, data, found = files
    data[part][1]["id"] = data[part][0]["id"]
    write(folder, data, found)
    refused(folder, "labels.json", f"{WORDS[part]} 1", "occurs twice")


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "[", "[{}", '[{"image_id": 1', "[]]", "[] []", "[]{}", "[],", "[]x", "[,]", "{", "{}", "3", "null",
        "nul",
        '"x"', "[1]", "[[]]", "[null]", '{"annotations": []}', "]", "\x00", "[" * 100_000, "NaN", "[NaN]", "﻿",
    ],
    ids=range(27),
)  # fmt: skip
def test_torn_results(files, text):
    folder, *_ = files
    (folder / "results.json").write_text(text, encoding="utf-8")
    refused(folder, "results.json")


@pytest.mark.parametrize(
    ("old", "new"),
    [("}, {", "} {"), ("}, {", "},, {"), ("[{", "[,{"), ("}]", "},]"), ("}]", "}] [{}]"), ("}]", "}] x"), ("}]", "}"),
     ('"score": ', '"score": 1.0, "score": '), ('"score": ', '"score": 0'), ('"score"', "score")],
)  # fmt: skip
@pytest.mark.parametrize("block", [29, 1 << 20])
def test_commas_and_lists_that_must_not_be(files, monkeypatch, old, new, block):
    from tasks.data import documents

    monkeypatch.setattr(documents, "BLOCK", block)
    folder, _, found = files
    text = json.dumps([d | {"score": 0.25} for d in found])
    assert old in text
    (folder / "results.json").write_text(text.replace(old, new, 1) if old != "}]" else text[:-2] + new)
    refused(folder, "results.json")


def test_bytes_that_are_no_text(files):
    folder, *_ = files
    for name in ("results.json", "labels.json"):
        good = (folder / name).read_bytes()
        for bad in (b"\xff\xfe" + good, good[: len(good) // 2], good[:40] + b"\xe9" + good[40:], b"\x1f\x8b" + good):
            (folder / name).write_bytes(bad)
            refused(folder, name)
        (folder / name).write_bytes(good)


def test_files_that_are_not_there(files):
    folder, *_ = files
    with pytest.raises(Missing) as caught:
        score(folder / "result.json", folder / "labels.json")
    one_line(caught.value, "result.json", "nearest: results.json")
    with pytest.raises(Missing):
        score(folder / "results.json", folder / "lables.json")
    with pytest.raises(Wrong):
        score(folder, folder / "labels.json")


def test_text_ids_are_ids(files):
    folder, data, found = files
    before = score_detections(found, data).metrics
    names = {one["id"]: f"{one['id']:05}.jpg" for one in data["images"]}
    for one in data["images"]:
        one["id"] = names[one["id"]]
    for one in (*data["annotations"], *found):
        one["image_id"] = names[one["image_id"]]
    write(folder, data, found)
    assert score(folder / "results.json", folder / "labels.json") == before
    found[1]["image_id"] = "nowhere.jpg"
    write(folder, data, found)
    refused(folder, "result 1", "'nowhere.jpg'", "nearest")
    found[1]["image_id"] = found[0]["image_id"] = 5
    write(folder, data, [found[0]])
    refused(folder, "result 0", "5", "whose ids are texts")


def test_whole_numbers_with_a_point_are_ids(files):
    _, data, found = files
    before = score(found, data)
    assert score([d | {"image_id": float(d["image_id"]), "score": d["score"]} for d in found], data) == before


@pytest.mark.parametrize(("spoil", "words"), [("labels.json", "labels.json"), ("results.json", "results.json")])
def test_the_front_door_prints_one_line_and_nothing_else(files, monkeypatch, capsys, spoil, words):
    folder, *_ = files
    arguments = [
        "score",
        "detection",
        "--predictions",
        f"{folder}/results.json",
        "--annotations",
        f"{folder}/labels.json",
    ]
    code, out, _ = call(monkeypatch, capsys, *arguments)
    assert code == 0 and list(json.loads(out)) == ["task", "protocol", "metrics", "counts"]
    (folder / spoil).write_text('{"images": [')
    code, out, err = call(monkeypatch, capsys, *arguments)
    assert code == 2 and out == "" and err.count("\n") == 1 and words in err
