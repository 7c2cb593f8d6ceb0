"""Pictures with sentences: Karpathy's JSON and its relatives, COCO captions, Flickr's token files, tables."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.data.documents import stream_json
from tasks.data.errors import Missing, Wrong, shown
from tasks.data.readers.files import read_text
from tasks.data.readers.tables import CAPTIONS, IMAGES, NAMES, Column, Table
from tasks.data.records import Records
from tasks.data.splits import Captioned

Listed = dict[str, list[str]]  # name of a picture -> its sentences
FILE_NAMES = ("filename", "file_name", "image", "img", "image_name", "filepath", "file_path")
SENTENCES = ("sentences", "captions", "caption", "raw", "sents")
# what splits are called; COCO's restval counts as train in all tables
SPLITS = {"train": "train", "restval": "train", "training": "train", "val": "val", "dev": "val", "valid": "val",
          "validation": "val", "test": "test"}  # fmt: skip
COLUMNS = {"name": ("image", "image_name", "filename", "file_name", "filepath", "img"),
           "text": ("caption", "comment", "title", "raw", "text", "sentence")}  # fmt: skip
TOKEN = re.compile(r"^(.+?)#(\d+)\t(.*)$")


def read_karpathy(path: Path) -> dict[str, Listed]:
    """All splits of a Karpathy JSON: `images`, each with file name, split and sentences.

    A sentence is an object with `raw` or `tokens`, or a plain text.

    Raises: Missing for no file. Wrong naming the image and the field that is not as it must be.

    Example: `len(read_karpathy(Path("dataset_flickr30k.json"))["test"]) == 1000`
    """
    splits: dict[str, Listed] = {}
    keys = []
    for key, first, chunk in stream_json(path, keep=_slim):
        keys.append(key)
        if key != "images":
            continue
        records = Records(chunk if first >= 0 else chunk[0], path, "image", max(first, 0))
        if len(records) and "split" not in records.values[0] and "file_name" in records.values[0]:
            advice = "COCO captions are named for train and val at once: annotations/captions_{split}2017.json"
            raise records.fault(0, "split", "is not there", advice)
        names, called = _names(records), records.texts("split")
        for i, record in enumerate(records.values):
            split = splits.setdefault(SPLITS.get(called[i].lower(), called[i]), {})
            if names[i] in split:
                raise records.fault(i, "filename", f"{shown(names[i])} occurs twice in split {called[i]!r}")
            split[names[i]] = _sentences(records, i, record)
    if keys and not keys[0]:
        raise Wrong("is a list, not a Karpathy JSON, which is an object with a list 'images'", path=path)
    if "images" not in keys:
        if {"annotations"} & set(keys):
            raise Wrong("has no list 'images': not a Karpathy JSON", path=path)
        raise Wrong(
            "has no list 'images': not a Karpathy JSON", path=path, advice=f"it has: {', '.join(keys) or 'nothing'}"
        )
    if not splits:
        raise Wrong("lists no images", path=path, field="images")
    return splits


def read_coco_captions(path: Path) -> Listed:
    """One split of COCO captions: lists `images` and `annotations`.

    Raises: Missing for no file. Wrong for fields that are not as they must be, captions of unknown images, images
        without caption.
    """
    names: dict[Any, str] = {}
    said: list[tuple[Any, str, int]] = []
    keys = set()
    for key, first, chunk in stream_json(path, keep=_slim):
        keys.add(key)
        if key not in ("images", "annotations"):
            continue
        kind = {"images": "image", "annotations": "caption"}[key]
        records = Records(chunk if first >= 0 else chunk[0], path, kind, max(first, 0), key)
        if key == "images":
            ids = records.ids("id").tolist()
            for i, (own, name) in enumerate(zip(ids, records.texts("file_name"), strict=True)):
                if own in names:
                    raise records.fault(i, "id", f"{shown(own)} occurs twice")
                names[own] = name
        else:
            texts = records.texts("caption")
            said += zip(records.ids("image_id").tolist(), texts, range(first, first + len(texts)), strict=True)
    for key in ("images", "annotations"):
        if key not in keys:
            raise Wrong(f"has no list {key!r}: not COCO captions", path=path)
    captions: dict[Any, list[str]] = {own: [] for own in names}
    for own, text, at in said:
        if own not in captions:
            raise Wrong(f"{shown(own)} is the id of no image", path=path, place=f"caption {at}", field="image_id")
        captions[own].append(text)
    found: Listed = {}
    for own, name in names.items():
        if name in found:
            raise Wrong(f"{shown(name)} occurs twice", path=path, place=f"image (id {own})", field="file_name")
        found[name] = captions[own]
    _none_without(found, path)
    return found


def read_caption_lines(path: Path) -> tuple[Listed, dict[str, str]]:
    """Flickr's token files (`a.jpg#0<tab>caption`), Kaggle's `captions.txt` and `results.csv`, CSV with a header.

    Returns: sentences by picture, and the split of each where the file has a column for it.
    Raises: Missing for no file. Wrong naming the line that is of another form.

    Example: `read_caption_lines(Path("results.csv"))[0]["1000092795.jpg"][0]`
    """
    lines = read_text(path).splitlines()
    if not any(line.strip() for line in lines):
        raise Wrong("is empty", path=path)
    if TOKEN.match(lines[0]):
        return _tokens(path, lines), {}
    return _rows(path, lines)


def read_caption_table(table: Table) -> Captioned:
    """Pictures and sentences out of columns: a list of sentences, or one.

    Raises: Wrong naming the row that has none.
    """
    image = table.choose(IMAGES, "", "pictures", "files")
    text = table.choose(CAPTIONS, "", "captions", "files")
    captions = []
    for i, value in enumerate(table.column(text)):
        own = [value] if isinstance(value, str) else value
        if not isinstance(own, list) or not own or not all(isinstance(c, str) and c.strip() for c in own):
            path, row = table.place(i)
            raise Wrong(f"must be sentences, not {shown(value)}", path=path, place=f"row {row}", field=text)
        captions.append(own)
    if not captions:
        raise Missing("has no rows", path=table.paths[0])
    called = next((n for n in NAMES if n in table.schema.names and n not in (image, text)), None)
    names = [str(name) for name in table.column(called)] if called else list(map(str, range(len(captions))))
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise Wrong(f"{shown(twice)} occurs twice", path=table.paths[0], field=called or "")
    return Captioned(names, Column(table, image), captions=captions)


def split_lists(folder: Path) -> dict[str, list[str]]:
    """Names of pictures by split, out of lists beside token files: `Flickr_8k.trainImages.txt`, `train.txt` and so on,
    or Karpathy's `dataset_flickr30k.json`.

    Example: `len(split_lists(Path("flickr8k"))["test"]) == 1000`
    """
    found: dict[str, list[str]] = {}
    for called, split in SPLITS.items():
        for path in [*sorted(folder.glob(f"*.{called}Images.txt")), folder / f"{called}.txt"]:
            if path.is_file() and split not in found:
                names = [line.strip() for line in read_text(path).splitlines()]
                found[split] = [name if "." in name else f"{name}.jpg" for name in names if name]
    if not found:
        for path in sorted(folder.glob("dataset*.json"))[:1]:
            found = {split: list(listed) for split, listed in read_karpathy(path).items()}
    return found


def _slim(value: Any) -> Any:
    """An image or caption without tokens, polygons and links."""
    if not isinstance(value, dict):
        return value
    kept = {k: v for k, v in value.items() if k in _KEPT}
    sentences = kept.get("sentences")
    if isinstance(sentences, list):
        kept["sentences"] = [
            {"raw": s["raw"]} if isinstance(s, dict) and isinstance(s.get("raw"), str) else s for s in sentences
        ]
    return kept


_KEPT = {*FILE_NAMES, *SENTENCES, "split", "filepath", "id", "image_id", "caption"}


def _names(records: Records) -> list[str]:
    """File names, below `filepath` where that is a folder."""
    if not len(records):
        return []
    field = next((f for f in FILE_NAMES if f in records.values[0]), "filename")
    names = [name.replace("\\", "/") for name in records.texts(field)]  # as Windows writes paths
    if field == "filepath":
        return names
    folders = records.texts("filepath", default="", empty=True)
    return [f"{folder}/{name}" if folder else name for folder, name in zip(folders, names, strict=True)]


def _sentences(records: Records, i: int, record: Mapping[str, Any]) -> list[str]:
    field = next((f for f in SENTENCES if f in record), None)
    if field is None:
        raise records.fault(i, "sentences", "is not there", f"it has: {', '.join(map(str, record))}")
    value = record[field]
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not values:
        raise records.fault(i, field, f"must be a list of sentences, not {shown(value)}")
    found = []
    for k, one in enumerate(values):
        text = one
        if isinstance(one, dict):
            text = one.get("raw", one.get("caption"))
            if text is None and isinstance(one.get("tokens"), list) and "raw" not in one:
                text = " ".join(map(str, one["tokens"]))
        if not isinstance(text, str) or not text.strip() or not _written(text):
            said = "must be a text, or an object with 'raw' or 'tokens'"
            raise records.fault(i, f"{field}[{k}]", f"{said}, not {shown(one)}")
        found.append(text)
    return found


def _written(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in text)


def _tokens(path: Path, lines: Iterable[str]) -> Listed:
    found: dict[str, dict[int, str]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        match = TOKEN.match(line)
        if match is None:
            raise Wrong(
                f"must be NAME#NUMBER, a tab and a caption, not {shown(line)}", path=path, place=f"line {number}"
            )
        name, order, text = match[1], int(match[2]), match[3].strip()
        if not text:
            raise Wrong("has no caption", path=path, place=f"line {number}")
        if order in found.setdefault(name, {}):
            raise Wrong(f"{name}#{order} occurs twice", path=path, place=f"line {number}")
        found[name][order] = text
    # Flickr8k's own list has one name that no picture has, with a second suffix: it is no picture's
    return {name: [texts[k] for k in sorted(texts)] for name, texts in found.items()}


def _rows(path: Path, lines: Sequence[str]) -> tuple[Listed, dict[str, str]]:
    separator = max(",|\t;", key=lines[0].count)
    reader = csv.reader(io.StringIO("\n".join(lines)), delimiter=separator, skipinitialspace=True,
                        quoting=csv.QUOTE_NONE if separator == "|" else csv.QUOTE_MINIMAL)  # fmt: skip
    rows = []
    try:
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(c.strip() for c in row)]
    except csv.Error as error:
        raise Wrong(f"is not CSV: {error}", path=path, place=f"line {reader.line_num}") from None
    head = [cell.lower() for cell in rows[0][1]]
    at = {}
    for what, names in COLUMNS.items():
        column = next((head.index(name) for name in names if name in head), None)
        if column is None:
            kind = "pictures" if what == "name" else "captions"
            raise Wrong(
                f"has no column of {kind} by a usual name ({', '.join(names)})", path=path, place="line 1",
                advice=f"it has: {', '.join(head)}; also read are token files (a.jpg#0, a tab, a caption)",
            )  # fmt: skip
        at[what] = column
    order = head.index("comment_number") if "comment_number" in head else None
    part = head.index("split") if "split" in head else None
    found: Listed = {}
    splits: dict[str, str] = {}
    for number, row in rows[1:]:
        if order is not None and len(row) == len(head) - 1:  # one line of Kaggle's results.csv lacks a bar
            digits = re.match(r"^(\d)\s+(.*)$", row[order])
            row = [*row[:order], digits[1], digits[2]] if digits else row
        if len(row) != len(head):
            raise Wrong(f"has {len(row)} values, the header names {len(head)}", path=path, place=f"line {number}")
        name, text = row[at["name"]], row[at["text"]]
        if not name or not text:
            raise Wrong(f"has no {'caption' if name else 'name'}", path=path, place=f"line {number}")
        found.setdefault(name, []).append(text)
        if part is not None:
            called = SPLITS.get(row[part].lower(), row[part])
            if splits.setdefault(name, called) != called:
                raise Wrong(f"{name} is in {splits[name]} and {called}", path=path, place=f"line {number}")
    return found, splits


def _none_without(found: Listed, path: Path) -> None:
    for name, captions in found.items():
        if not captions:
            raise Wrong(f"image {name!r} has no caption", path=path)
