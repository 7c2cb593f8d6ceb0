"""Detections as columns, from arrays, lists of dicts or files too large to parse at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from tasks.contract import TaskError
from tasks.detection.labels.annotations import Truth, check_boxes, positions

BLOCK = 1 << 20  # characters read at a time
CHUNK = 65536  # dicts held at a time


@dataclass(frozen=True)
class Detections:
    """M detections: `image_id`, `category_id` int64 [M]; `score` float64 [M]; `box` float64 [M, 4] as x, y, w, h in
    pixels. 56 bytes each, a tenth of what a dict of Python takes."""

    image_id: np.ndarray
    category_id: np.ndarray
    score: np.ndarray
    box: np.ndarray

    def __len__(self) -> int:
        return len(self.score)

    def cut(self, index: np.ndarray) -> Detections:
        return Detections(self.image_id[index], self.category_id[index], self.score[index], self.box[index])


def stream_results(path: str | Path) -> Iterator[Mapping[str, Any]]:
    """The objects of a JSON array, one after the other, in memory of one block.

    Raises: TaskError for a missing file or one that is no JSON array.
    """
    path = Path(path)
    if not path.is_file():
        raise TaskError(f"no file {path}")
    decode = json.JSONDecoder().raw_decode
    with path.open(encoding="utf-8") as file:
        text, at = file.read(BLOCK).lstrip(), 1
        if not text.startswith("["):
            raise TaskError(f"{path} is not a JSON list of detections")
        while True:
            while at < len(text) and text[at] in " \t\r\n,":
                at += 1
            if at < len(text) and text[at] == "]":
                return
            try:
                value, at = decode(text, at)
            except json.JSONDecodeError as error:
                more = file.read(BLOCK)
                if not more:
                    raise TaskError(f"{path} is not a JSON list of detections: {error.msg}") from error
                text, at = text[at:] + more, 0
                continue
            yield value


def columns(results: Iterable[Mapping[str, Any]]) -> Detections:
    """Dicts of the LVIS results format to columns.

    Raises: TaskError naming the first detection that lacks a key or has a value of the wrong kind.

    Example: `columns([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.9}])`
    """
    parts: list[Detections] = []
    stream, seen = iter(results), 0
    while chunk := list(islice(stream, CHUNK)):
        try:
            parts.append(
                Detections(
                    np.array([r["image_id"] for r in chunk], np.int64),
                    np.array([r["category_id"] for r in chunk], np.int64),
                    np.array([r["score"] for r in chunk], np.float64),
                    np.array([r["bbox"] for r in chunk], np.float64).reshape(len(chunk), 4),
                )
            )
        except (KeyError, TypeError, ValueError) as error:
            raise TaskError(_first_fault(chunk, seen)) from error
        seen += len(chunk)
    if not parts:
        empty = np.empty(0)
        return Detections(empty.astype(np.int64), empty.astype(np.int64), empty, empty.reshape(0, 4))
    fields = ("image_id", "category_id", "score", "box")
    return Detections(*(np.concatenate([getattr(p, f) for p in parts]) for f in fields))


def _first_fault(chunk: list[Any], offset: int) -> str:
    for i, one in enumerate(chunk, offset):
        if not isinstance(one, Mapping):
            return f"result {i} is not an object of image_id, category_id, bbox, score"
        for key in ("image_id", "category_id", "bbox", "score"):
            if key not in one:
                return f"result {i} has no {key!r}; it has: {', '.join(map(str, one))}"
        try:
            int(one["image_id"]), int(one["category_id"]), float(one["score"])
            fits = len([float(v) for v in one["bbox"]]) == 4
        except (TypeError, ValueError):
            fits = False
        if not fits:
            return f"result {i} has values of the wrong kind: {str(dict(one))[:120]}"
    return f"results from {offset} on have values of the wrong kind"


def read_results(results: str | Path | Detections | Iterable[Mapping[str, Any]]) -> Detections:
    """Columns of whatever is given: a JSON file, dicts, or columns."""
    if isinstance(results, Detections):
        return results
    return columns(stream_results(results) if isinstance(results, str | Path) else results)


def check_results(found: Detections, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    """Image and category indices [M] of detections.

    Raises: TaskError for unknown ids, boxes outside their image, scores that are not finite.
    """
    if not len(found):
        return found.image_id, found.category_id
    image = positions(truth.image_ids, found.image_id, "image", "result")
    category = positions(truth.category_ids, found.category_id, "category", "result")
    check_boxes(found.box, truth.sizes[image], "result")
    if not np.isfinite(found.score).all():
        i = int(np.argmin(np.isfinite(found.score)))
        raise TaskError(f"result {i} has score {found.score[i]}")
    return image, category


def best_per_image(image: np.ndarray, score: np.ndarray, limit: int) -> np.ndarray:
    """Order [M'] by image, then falling score (ties: first given first), at most `limit` an image over all classes."""
    order = np.lexsort((-score, image))  # lexsort is stable
    image = image[order]
    rank = np.arange(len(image)) - np.searchsorted(image, image, side="left")
    return order[rank < limit]
