"""Captions and tables as others write them: taken rightly, or one line with the nearest form."""

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_tools import picture

from benchmarks.prepare.check import Checked, check_sets
from tasks.contract import TaskError

LETTERS = "abcdefghijkl"
SPLITS = {x: "val" if x == "k" else "test" if x == "l" else "train" for x in LETTERS}


def look(root: Path, name: str) -> Checked:
    (found,) = check_sets([name], root)
    assert all("\n" not in text and text.isprintable() for text in (*found.problems, *found.notes))
    return found


def written(root: Path, name: str, content: str | bytes, suffix: str = ".jpg", **beside: str) -> str:
    for i, letter in enumerate(LETTERS):
        picture(root / "my" / "images" / f"{letter}{suffix}", i)
    (root / "my" / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    for file, text in beside.items():
        (root / "my" / f"{file}.txt").write_text(text)
    return f"my/{name}"


def karpathy(change: Callable[[list[dict[str, Any]]], object] = lambda images: None) -> str:
    images = [{"filename": f"{x}.jpg", "split": s, "sentences": [{"raw": f"a {x}"}]} for x, s in SPLITS.items()]
    change(images)
    return json.dumps({"images": images})


ROWS = [(f"{x}.jpg", s, f"A picture of {x}, said {n} times .") for x, s in SPLITS.items() for n in range(2)]
TOKENS = "".join(f"{name}#{i % 2}\t{text}\n" for i, (name, _, text) in enumerate(ROWS))
LISTS = {s: "".join(f"{x}.jpg\n" for x in LETTERS if SPLITS[x] == s) for s in ("train", "val", "test")}
TAKEN: dict[str, tuple[str, str | bytes]] = {
    "karpathy": ("k.json", karpathy()), "mark": ("k.json", "\ufeff" + karpathy()),
    "plain texts": ("k.json", karpathy(lambda x: [i.update(sentences=["x", "y"]) for i in x])),
    "one text": ("k.json", karpathy(lambda x: [i.update(sentences="x") for i in x])),
    "Windows": ("k.json", karpathy(lambda x: [i.update(filename=f"..\\images\\{i['filename']}") for i in x])),
    "tokens": ("t.token", TOKENS), "tokens of Windows": ("t.token", TOKENS.replace("\n", "\r\n")),
    "csv": ("c.csv", "filename,split,caption\n" + "".join(f'{n},{s},"{t}"\n' for n, s, t in ROWS)),
    "csv with a mark": ("c.csv", "\ufefffilename,split,caption\n" + "".join(f'{n},{s},"{t}"\n' for n, s, t in ROWS)),
    "semicolons": ("c.csv", "filename;split;caption\n" + "".join(f"{n};{s};{t}\n" for n, s, t in ROWS)),
    "tabs": ("c.tsv", "filename\tsplit\tcaption\n" + "".join(f"{n}\t{s}\t{t}\n" for n, s, t in ROWS)),
    "lines in a caption": ("c.csv", "filename,split,caption\n" + "".join(f'{n},{s},"x\n{t}"\n' for n, s, t in ROWS)),
}  # fmt: skip


@pytest.mark.parametrize("kind", TAKEN)
def test_files_of_captions_are_taken(tmp_path, kind: str) -> None:
    name, content = TAKEN[kind]
    found = look(tmp_path, written(tmp_path, name, content, **LISTS))
    assert found.state == "ok" and found.splits["train"] == 10, found


WRONG: dict[str, tuple[str, str | bytes, str]] = {
    "UTF-16": ("k.json", karpathy().encode("utf-16"), "is not JSON: not UTF-8 text"),
    "a list": ("k.json", json.dumps(json.loads(karpathy())["images"]), "is a list, not a Karpathy JSON, which"),
    "lines": ("k.json", "\n".join(map(json.dumps, json.loads(karpathy())["images"])), "of JSON lines make one object"),
    "no split": ("k.json", karpathy(lambda x: x[0].pop("split")), "image 0: has no 'split'"),
    "nothing said": ("k.json", karpathy(lambda x: x[0].update(sentences=[])), "image 0: sentences must be a list"),
    "null": ("k.json", karpathy(lambda x: x[0].update(sentences=[{"raw": None}])), r"image 0: sentences\[0\] must be"),
    "twice": ("k.json", karpathy(lambda x: x.append(x[0])), "image 12: filename 'a.jpg' occurs twice"),
    "COCO's": ("c.json", json.dumps({"images": [{"id": 1, "file_name": "a.jpg"}]}), "named for train and val at once"),
    "no header": ("c.csv", "a.jpg,x\n", "line 1: has no column of pictures by a usual name"),
    "Latin-1": ("c.csv", "filename,split,caption\na.jpg,train,é\n".encode("latin-1"), "is not UTF-8 text"),
    "empty": ("c.csv", "", "is empty"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_file_of_captions_is_named(tmp_path, kind: str) -> None:
    name, content, said = WRONG[kind]
    found = look(tmp_path, path := written(tmp_path, name, content))
    assert found.state == "wrong" and re.match(f"{tmp_path / path}: .*{said}", found.problems[0]), found.problems


def test_pictures_and_splits_that_are_not_read_are_told(tmp_path) -> None:
    name = written(tmp_path, "k.json", karpathy(lambda x: x[0].update(split="odd")))
    picture(tmp_path / "my" / "images" / "m.jpg", 99)
    content = json.loads((tmp_path / name).read_text())
    content["images"].append({"filename": "m.jpg", "split": "train", "sentences": ["x"]})
    (tmp_path / name).write_text(json.dumps(content))
    note = f"{tmp_path / name}: images are passed over: 1 of split 'odd'; read are train, val and test"
    assert look(tmp_path, name).notes == [note]
    name = written(tmp_path / "b", "k.json", karpathy(), ".JPG")
    assert "the first is a.jpg; there is a.JPG: capitals count" in look(tmp_path / "b", name).problems[0]


def test_captions_of_coco_are_named_by_both_their_files(tmp_path) -> None:
    for split, letters in (("train", "abcdefghij"), ("val", "kl")):
        images = [{"id": i, "file_name": f"{x}.jpg"} for i, x in enumerate(letters)]
        for i, one in enumerate(images):
            picture(tmp_path / "my" / f"{split}2017" / one["file_name"], i + 20 * len(split))
        said = [{"id": i, "image_id": i, "caption": "x"} for i in range(len(images))]
        place = tmp_path / "my" / "annotations" / f"captions_{split}2017.json"
        place.parent.mkdir(exist_ok=True)
        place.write_text(json.dumps({"images": images, "annotations": said}))
    assert look(tmp_path, "my/annotations/captions_{split}2017.json").state == "ok"
    with pytest.raises(TaskError, match=r"named by their file: my/annotations/captions_\{split\}2017\.json"):
        look(tmp_path, "my")


def table(root: Path, name: str = "{}.parquet", **columns: Any) -> Checked:
    for split in ("train", "test"):
        images = [picture(root / "e" / f"{split}{i}.png", i + 10 * len(split)).read_bytes() for i in range(4)]
        own = {"image": images, "label": [0, 1, 0, 1], **{k: v(images) for k, v in columns.items()}}
        place = root / "t" / name.format(split)
        place.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({k: v for k, v in own.items() if v is not None}), place)
    return look(root, "t/")


@pytest.mark.parametrize("columns", [
    {}, {"image": lambda images: [{"bytes": b, "path": "x"} for b in images]},
    {"label": lambda _: ["a", "b", "a", "b"]},
    {"label": lambda _: [0.0, 1.0, 0.0, 1.0]}, {"label": lambda _: pa.array(["a", "b", "a", "b"]).dictionary_encode()},
])  # fmt: skip
def test_tables_are_taken(tmp_path, columns) -> None:
    found = table(tmp_path, **columns)
    assert found.state == "ok" and found.classes == 2
    assert table(tmp_path / "hub", "default/{}/0000.parquet").state == "ok"


@pytest.mark.parametrize("columns, said", [
    ({"image": lambda images: [None, *images[1:]]}, "row 0: image holds no picture, but None"),
    ({"image": lambda _: [[1, 2, 3]] * 4}, r"row 0: image holds no picture, but \[1, 2, 3\]"),
    ({"image": lambda images: [base64.b64encode(b).decode() for b in images]},
     r"row 0: image holds text, 'iVBORw0KGgo.*, and no picture; pictures in base64 are not read: write their bytes"),
    ({"label": lambda _: [True, False] * 2}, "row 0: label must be a whole number from 0 on, .*, not True"),
    ({"label": lambda _: [[1, 0], [0, 1]] * 2}, r"row 0: label must be .*, not \[1, 0\]"),
    ({"label": lambda _: None}, "has no column of labels by a usual name .*; it has: image; the option label_column"),
])  # fmt: skip
def test_odd_tables_are_named(tmp_path, columns, said: str) -> None:
    found = table(tmp_path, **columns)
    assert found.state == "wrong" and re.match(f"{tmp_path}/t/train.parquet: {said}", found.problems[0]), found.problems
