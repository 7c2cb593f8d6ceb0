"""LVIS and COCO labels as columns: what is known of each image, checked once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tasks.data.boxes.columns import BoxLabels, read_box_labels
from tasks.data.boxes.protocols import Protocol
from tasks.data.boxes.unusual import unusual_boxes
from tasks.data.documents import stream_json
from tasks.data.errors import Wrong


@dataclass(frozen=True)
class Truth:
    """Labels of I images, K categories and N boxes; images and categories are indices into the sorted ids.

    `image_ids` [I], `category_ids` [K] are int64, or objects where ids are strings. `image`, `category` int64 [N];
    `box` float64 [N, 4] (x, y, width, height in pixels); `area` float64 [N] of the mask where there is one; `ignore`,
    `crowd` bool [N]; `known` and `partial` are sorted int64 keys image * K + category: those a detector is judged on
    (None: all), and those of them whose unmatched detections are not held against it (not exhaustive). `frequency`
    [K] holds "r", "c", "f" or "". `counts`: boxes by what is unusual about them.
    """

    protocol: Protocol
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
    crowd: np.ndarray
    known: np.ndarray | None
    partial: np.ndarray
    counts: Mapping[str, int] = field(default_factory=dict)

    def of_images(self, places: Sequence[int]) -> Truth:
        """Labels of some images alone, by their ascending places; ids and categories stay.

        Example: `truth.of_images([0, 10]).image_ids` are the first id and the eleventh
        """
        chosen, categories = np.asarray(places, np.int64), len(self.category_ids)
        own = np.isin(self.image, chosen)
        known = None if self.known is None else _of_images(self.known, chosen, categories)
        return dataclasses.replace(
            self, image_ids=self.image_ids[chosen], sizes=self.sizes[chosen],
            image=np.searchsorted(chosen, self.image[own]), category=self.category[own], box=self.box[own],
            area=self.area[own], ignore=self.ignore[own], crowd=self.crowd[own], known=known,
            partial=_of_images(self.partial, chosen, categories), counts={},
        )  # fmt: skip


def _of_images(keys: np.ndarray, chosen: np.ndarray, categories: int) -> np.ndarray:
    """Keys image * K + category of the chosen images, which are counted anew."""
    image, category = np.divmod(keys, categories)
    own = np.isin(image, chosen)
    return np.searchsorted(chosen, image[own]) * categories + category[own]


def read_labels(path: str | Path) -> dict[str, Any]:
    """What a label file holds, without its polygons, which are most of it and of no use for boxes.

    Raises: Missing and Wrong as `stream_json`; Wrong where the file is no object.

    Example: `len(read_labels("lvis_v1_val.json")["images"])` is 19809
    """
    found: dict[str, Any] = {}
    for key, start, values in stream_json(path, _without_polygons):
        if not key:
            raise Wrong("is a list, not LVIS or COCO labels, which are an object of images and annotations", path=path)
        if start < 0:
            found[key] = values[0]
        else:
            found.setdefault(key, []).extend(values)
    return found


def _without_polygons(value: Any) -> Any:
    if type(value) is dict:
        value.pop("segmentation", None)
    return value


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


def read_truth(
    annotations: str | Path | Mapping[str, Any], protocol: Protocol | None = None, file: str | Path | None = None
) -> Truth:
    """Labels from an LVIS or COCO JSON file, or what such a file holds, under the rules of `protocol` (None: those of
    the file, see `recognised`).

    Boxes are taken as they are, beyond the image or of a negative side, as the official scorers take them, and
    counted. By LVIS' rules boxes whose `area` is not positive are dropped, as officially. Where `area` is absent it is
    that of the box. COCO labels have a form under LVIS' rules too: that of `as_lvis`.

    Args: file: the name in messages, where `annotations` is no path.
    Raises: Missing and Wrong for missing parts, no images, no boxes, ids that are unknown or occur twice, and values
        that the schema forbids, with file, place and field.

    Example: `read_truth("lvis_v1_val.json").names[0]`
    """
    return truth_of(read_box_labels(annotations, file), protocol)


def truth_of(labels: BoxLabels, protocol: Protocol | None = None) -> Truth:
    """Labels under the rules of `protocol`, see `read_truth`.

    Example: `truth_of(read_box_labels("lvis_v1_val.json")).names[0]`
    """
    own = labels.protocol
    rules = own if protocol is None else Protocol(protocol)
    image_ids, category_ids, image, category = labels.image_ids, labels.category_ids, labels.image, labels.category
    box, area, crowd, ignore = labels.box, labels.area, labels.crowd, labels.ignore
    counts = {f"annotations_{kind}": count for kind, count in unusual_boxes(box, labels.sizes[image]).items()}
    counts |= {"annotations_area_from_box": labels.area_from_box, "annotations_crowd": int(crowd.sum())}
    keys = image * len(category_ids) + category
    known, partial, keep = None, np.empty(0, np.int64), np.ones(len(box), bool)
    if rules == Protocol.coco:
        ignore = crowd  # `ignore` is no field of COCO's, and its scorer overwrites it
    elif own == Protocol.coco:
        keep, partial = (area > 0) & ~crowd, np.unique(keys[crowd])
        # neither absent nor there: a category whose boxes in an image are all empty
        unsure = np.setdiff1d(keys[(area <= 0) & ~crowd], keys[keep])
        known = np.setdiff1d(np.arange(len(image_ids) * len(category_ids)), unsure) if len(unsure) else None
    else:
        keep, crowd = area > 0, np.zeros(len(box), bool)  # LVIS has no crowds, and its scorer does not ask
        assert labels.absent is not None and labels.partial is not None, "LVIS labels have these lists"
        negative, partial = (
            np.unique(owner * len(category_ids) + index) for owner, index in (labels.absent, labels.partial)
        )
        known = np.union1d(negative, keys[keep])
    frequency = np.array([c.get("frequency", "") for c in labels.categories], "<U1")
    return Truth(
        rules, image_ids, category_ids, labels.names, frequency, labels.sizes, image[keep], category[keep], box[keep],
        area[keep], ignore[keep], crowd[keep], known, partial, {"annotations": int(keep.sum()), **counts},
    )  # fmt: skip
