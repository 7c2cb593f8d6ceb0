"""LVIS and COCO labels as columns: what is known of each image, checked once."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.contract import TaskError
from tasks.data import formats

FREQUENCIES = ("r", "c", "f")


@dataclass(frozen=True)
class Truth:
    """Labels of I images, K categories and N boxes; images and categories are indices into the sorted ids.

    `image`, `category` int64 [N]; `box` float64 [N, 4] (x, y, width, height in pixels); `area` float64 [N] of the mask
    where there is one; `ignore` bool [N]; `known` and `partial` are sorted int64 keys image * K + category: those a
    detector is judged on, and those of them whose unmatched detections are not held against it (not exhaustive).
    `frequency` [K] holds "r", "c", "f" or "".
    """

    image_ids: np.ndarray
    category_ids: np.ndarray
    names: tuple[str, ...]
    frequency: np.ndarray
    sizes: np.ndarray
    image: np.ndarray
    category: np.ndarray
    box: np.ndarray
    area: np.ndarray
    ignore: np.ndarray
    known: np.ndarray
    partial: np.ndarray


def read_json(path: str | Path) -> Any:
    """Raises: TaskError for a file that is missing or no JSON."""
    path = Path(path)
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.json")], 3, 0.4)
        raise TaskError(f"no file {path}" + (f"; nearest: {', '.join(near)}" if near else ""))
    return formats.read_json(path)


def as_lvis(data: Mapping[str, Any]) -> dict[str, Any]:
    """COCO labels in LVIS form; LVIS labels come back as they are.

    COCO is exhaustive: every absent category is a negative. A crowd is no box, but its category stops being
    exhaustive in that image, because the crowd's members are not outlined one by one.
    """
    images = data["images"]
    if not images or all("neg_category_ids" in i for i in images):
        return dict(data)
    every = [c["id"] for c in data["categories"]]
    present: dict[Any, set[Any]] = {}
    crowded: dict[Any, set[Any]] = {}
    for one in data["annotations"]:
        (crowded if one.get("iscrowd") else present).setdefault(one["image_id"], set()).add(one["category_id"])
    extra = {
        i["id"]: {
            "neg_category_ids": [c for c in every if c not in present.get(i["id"], ())],
            "not_exhaustive_category_ids": sorted(crowded.get(i["id"], ())),
        }
        for i in images
    }
    kept = [a for a in data["annotations"] if not a.get("iscrowd")]
    return {**data, "images": [{**extra[i["id"]], **i} for i in images], "annotations": kept}


def positions(ids: np.ndarray, wanted: np.ndarray, what: str, where: str) -> np.ndarray:
    """Index of each wanted id among the sorted `ids`.

    Raises: TaskError naming the first unknown id and the nearest known ones.
    """
    index = np.searchsorted(ids, wanted).clip(max=len(ids) - 1)
    wrong = np.flatnonzero(ids[index] != wanted)
    if len(wrong):
        bad = wanted[wrong[0]]
        near = ids[np.argsort(np.abs(ids - bad), kind="stable")[:3]]
        raise TaskError(f"{where} {wrong[0]} names unknown {what} id {bad}; nearest: {', '.join(map(str, near))}")
    return index


def check_boxes(box: np.ndarray, size: np.ndarray, where: str) -> None:
    """Boxes [N, 4] must be finite, of no negative side, and touch their image; `size` [N, 2] is (width, height).

    Boxes that reach over an edge are allowed: detectors and the official annotations have them.

    Raises: TaskError naming the first bad box.
    """
    finite = np.isfinite(box).all(1)
    positive = (box[:, 2:] >= 0).all(1)
    inside = (box[:, :2] <= size).all(1) & (box[:, :2] + box[:, 2:] >= 0).all(1)
    for good, why in ((finite, "is not finite"), (positive, "has a negative side"), (inside, "is outside the image")):
        if not good.all():
            i = int(np.argmin(good))
            sides = "x".join(f"{s:g}" for s in size[i])
            raise TaskError(f"{where} {i}: box {box[i].tolist()} {why} ({sides} px)")


def read_truth(annotations: str | Path | Mapping[str, Any]) -> Truth:
    """Labels from an LVIS or COCO JSON file, or what such a file holds.

    Boxes whose `area` is zero are dropped, as the official scorer does.

    Raises: TaskError for missing parts, no images, no boxes, unknown ids, boxes outside their image.

    Example: `read_truth("lvis_v1_val.json").names[0]`
    """
    data = annotations if isinstance(annotations, Mapping) else read_json(annotations)
    for part in ("images", "categories", "annotations"):
        if not isinstance(data, Mapping) or part not in data:
            raise TaskError(f"annotations have no {part!r}: not LVIS or COCO JSON")
        if not data[part]:
            raise TaskError(f"annotations list no {part}: nothing to score against")
    data = as_lvis(data)
    images = sorted(data["images"], key=lambda i: i["id"])
    categories = sorted(data["categories"], key=lambda c: c["id"])
    image_ids = np.array([i["id"] for i in images], np.int64)
    category_ids = np.array([c["id"] for c in categories], np.int64)
    for ids, what in ((image_ids, "image"), (category_ids, "category")):
        twice = ids[1:][np.diff(ids) == 0]
        if len(twice):
            raise TaskError(f"{what} id {twice[0]} occurs twice in the annotations")
    sizes = np.array([(i["width"], i["height"]) for i in images], np.float64)
    boxes = data["annotations"]
    image = positions(image_ids, np.array([a["image_id"] for a in boxes], np.int64), "image", "annotation")
    category = positions(category_ids, np.array([a["category_id"] for a in boxes], np.int64), "category", "annotation")
    box = np.array([a["bbox"] for a in boxes], np.float64).reshape(-1, 4)
    check_boxes(box, sizes[image], "annotation")
    area = np.array([a["area"] if "area" in a else a["bbox"][2] * a["bbox"][3] for a in boxes], np.float64)
    ignore = np.array([bool(a.get("ignore", 0)) for a in boxes])
    keep = area > 0
    image, category, box, area, ignore = image[keep], category[keep], box[keep], area[keep], ignore[keep]

    def listed(key: str) -> np.ndarray:
        counts = [len(i.get(key, ())) for i in images]
        ids = np.array([c for i in images for c in i.get(key, ())], np.int64)
        index = positions(category_ids, ids, "category", key) if len(ids) else ids
        return np.unique(np.repeat(np.arange(len(images)), counts) * len(categories) + index)

    known = np.union1d(listed("neg_category_ids"), image * len(categories) + category)
    return Truth(
        image_ids, category_ids, tuple(c["name"] for c in categories),
        np.array([c.get("frequency", "") for c in categories]), sizes, image, category, box, area, ignore,
        known, listed("not_exhaustive_category_ids"),
    )  # fmt: skip
