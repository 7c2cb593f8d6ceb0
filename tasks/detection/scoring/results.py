"""Detections as columns, from arrays, lists of dicts or files too large to parse at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from tasks.data.boxes.ids import positions
from tasks.data.documents import CHUNK, stream_json
from tasks.data.errors import Wrong
from tasks.data.records import LONGEST, Records
from tasks.detection.labels.annotations import Truth

FIELDS = ("image_id", "category_id", "score", "box")


@dataclass(frozen=True)
class Detections:
    """M detections: `image_id`, `category_id` int64 [M], or objects where ids are strings; `score` float64 [M]; `box`
    float64 [M, 4] as x, y, w, h in pixels. 56 bytes each, a tenth of what a dict of Python takes."""

    image_id: np.ndarray
    category_id: np.ndarray
    score: np.ndarray
    box: np.ndarray

    def __len__(self) -> int:
        return len(self.score)

    def cut(self, index: np.ndarray) -> Detections:
        return Detections(self.image_id[index], self.category_id[index], self.score[index], self.box[index])


def read_results(results: str | Path | Detections | Iterable[Mapping[str, Any]]) -> Detections:
    """Columns of whatever is given: a JSON file in the results format of LVIS and COCO, its dicts, or columns.

    Raises: Missing and Wrong for a file that is not there, no JSON list, or torn, and naming the first detection that
        lacks a field or has a value of the wrong kind.

    Example: `read_results([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.9}])`
    """
    if isinstance(results, Detections):
        return results
    path = results if isinstance(results, str | Path) else None
    chunks = _listed(path) if isinstance(results, str | Path) else _chunks(results)
    parts, seen = [], 0
    for chunk in chunks:
        read = Records(chunk, path, "result", seen)
        seen += len(chunk)
        parts.append(Detections(read.ids("image_id"), read.ids("category_id"), read.numbers("score"), read.boxes()))
    parts = [part for part in parts if len(part)]
    if not parts:
        empty = np.empty(0)
        return Detections(empty.astype(np.int64), empty.astype(np.int64), empty, empty.reshape(0, 4))
    return Detections(*(np.concatenate([getattr(part, name) for part in parts]) for name in FIELDS))


def _listed(path: str | Path) -> Iterator[list[Any]]:
    """Raises: Wrong for an object."""
    key = None
    for key, _, values in stream_json(path):
        if key:
            break
        yield values
    if key is None or key:
        raise Wrong("is an object, not a list of detections", path=path)


def _chunks(results: Iterable[Mapping[str, Any]]) -> Iterator[list[Any]]:
    stream = iter(results)
    while chunk := list(islice(stream, CHUNK)):
        yield chunk


def check_results(found: Detections, truth: Truth, path: str | Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Image and category indices int64 [M] of detections; `path` is their file's name in messages.

    Raises: Wrong for unknown ids, and for scores and boxes that are not finite.
    """
    if not len(found):
        return np.empty(0, np.int64), np.empty(0, np.int64)

    def fault(at: int, field: str, why: str) -> Wrong:
        return Wrong(why, path=path, place=f"result {at}", field=field)

    image = positions(truth.image_ids, found.image_id, "images", lambda i, why: fault(i, "image_id", why))
    category = positions(
        truth.category_ids, found.category_id, "categories", lambda i, why: fault(i, "category_id", why)
    )
    for name, values in (("score", found.score[:, None]), ("bbox", found.box)):
        bad = ~((np.abs(values) < LONGEST) if name == "bbox" else np.isfinite(values)).all(1)
        if bad.any():
            raise fault(int(np.argmax(bad)), name, f"must be finite, not {values[np.argmax(bad)].tolist()}")
    return image, category


def best_per_group(group: np.ndarray, score: np.ndarray, limit: int) -> np.ndarray:
    """Order [M'] by group, then falling score (ties: first given first), at most `limit` of a group."""
    order = np.lexsort((-score, group))  # lexsort is stable
    group = group[order]
    rank = np.arange(len(group)) - np.searchsorted(group, group, side="left")
    return order[rank < limit]
