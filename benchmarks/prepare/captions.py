"""Pictures with captions: Flickr8k."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.prepare.downloads import Download, check_name
from benchmarks.prepare.packing import chosen, counted, encoded, rgb, write_json, write_parquet
from tasks.contract import TaskError

Say = Callable[[str], None]
FLICKR_SIZES = {"train": 4000, "val": 500, "test": 1000}
SIDE, QUALITY, CAPTIONS = 160, 70, 5
_LISTS = {"train": "trainImages", "val": "devImages", "test": "testImages"}


def flickr8k(download: Download, out: Path, sizes: Mapping[str, int], say: Say) -> None:
    """`sizes` pictures of the official split lists, squeezed to 160x160, five captions each.

    Raises: TaskError for another layout, missing pictures or captions, too short lists.
    """
    import pyarrow as pa

    tokens = download.find("Flickr8k.token.txt")
    lists = {s: download.find(f"Flickr_8k.{part}.txt") for s, part in _LISTS.items()}
    pictures = download.find("Flicker8k_Dataset", "Flickr8k_Dataset", "Images")
    captions = _captions(tokens)
    official = {s: [check_name(n, p.name) for n in p.read_text(encoding="utf-8").split()] for s, p in lists.items()}
    folder, images = out / "retrieval", []
    schema = pa.schema([
        ("imgid", pa.int32()), ("filename", pa.string()), ("image", pa.binary()), ("captions", pa.list_(pa.string())),
    ])  # fmt: skip
    for split, count in sizes.items():
        if len(official[split]) < count:
            raise TaskError(f"{lists[split]} has {len(official[split])} pictures, {count} are needed")
        names = chosen(official[split], count)
        if absent := [n for n in names if len(captions.get(n, ())) < CAPTIONS]:
            raise TaskError(f"{tokens} has fewer than {CAPTIONS} captions of {absent[0]}")
        first = len(images)
        images += [_entry(name, first + i, split, captions[name]) for i, name in enumerate(names)]
        rows = _rows(pictures, images[first:], split, say)
        write_parquet(folder, f"flickr8k_{split}", rows, schema)
    write_json(folder / "dataset_flickr8k.json", {"dataset": "flickr8k", "images": images})
    table = io.StringIO()
    lines = [("image", "caption"), *((name, text) for name, texts in captions.items() for text in texts)]
    csv.writer(table, lineterminator="\n").writerows(lines)
    _gzip(folder / "flickr8k_all_captions.csv.gz", table.getvalue())
    _gzip(folder / "flickr8k_official_splits.json.gz", json.dumps({
        "train": official["train"], "dev": official["val"], "test": official["test"]
    }))  # fmt: skip


def _captions(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        key, tab, caption = line.partition("\t")
        name, mark, _ = key.rpartition("#")
        if not tab or not mark:
            raise TaskError(f"{path}:{number} is not 'picture.jpg#0<tab>caption'")
        found.setdefault(name, []).append(caption.strip())
    return found


def _entry(name: str, number: int, split: str, captions: list[str]) -> dict[str, Any]:
    ids = range(number * CAPTIONS, (number + 1) * CAPTIONS)
    sentences = [{"raw": c, "sentid": i, "imgid": number} for c, i in zip(captions, ids, strict=False)]
    return {"filename": name, "imgid": number, "split": split, "sentids": list(ids), "sentences": sentences}


def _rows(pictures: Path, entries: list[dict[str, Any]], split: str, say: Say) -> Iterable[dict[str, Any]]:
    for entry in counted(entries, f"flickr8k {split}", say):
        small = rgb(pictures / entry["filename"]).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        yield {
            "imgid": entry["imgid"], "filename": entry["filename"], "image": encoded(small, "WEBP", QUALITY),
            "captions": [s["raw"] for s in entry["sentences"]],
        }  # fmt: skip


def _gzip(path: Path, text: str) -> None:
    with gzip.GzipFile(path, "wb", mtime=0) as file:
        file.write(text.encode())
