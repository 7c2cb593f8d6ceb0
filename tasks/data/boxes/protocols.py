"""Whose rules labels are scored by, recognised by the fields that they have.

LVIS asks about few categories an image and says which (`neg_category_ids`, `not_exhaustive_category_ids`), and groups
categories by `frequency`; COCO labels every category in every image and marks crowds (`iscrowd`). So: a file in which
any image or category has one of LVIS' fields is LVIS; any other is COCO.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from tasks.data.documents import stream_json

LVIS_FIELDS = ("neg_category_ids", "not_exhaustive_category_ids")


class Protocol(StrEnum):
    """Rules of box AP.  Example: `Protocol("coco")`"""

    lvis = "lvis"
    coco = "coco"


def recognised(images: Sequence[Mapping[str, Any]], categories: Sequence[Mapping[str, Any]]) -> Protocol:
    """The protocol of labels.

    Example: `recognised([{"id": 1, "neg_category_ids": []}], [])` is `Protocol.lvis`
    """
    federated = any(field in one for one in images for field in LVIS_FIELDS)
    return Protocol.lvis if federated or any("frequency" in one for one in categories) else Protocol.coco


def protocol_of(path: Path) -> Protocol:
    """The protocol of a label file, which is read no further than its first sign of LVIS; a file is asked once.

    Raises: Missing and Wrong as `stream_json`, for a part of it that is read.

    Example: `protocol_of(Path("instances_val2017.json"))` is `Protocol.coco`
    """
    state = path.stat()
    return _protocol_of(path, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _protocol_of(path: Path, _size: int, _changed: int) -> Protocol:
    for key, _, values in stream_json(path):
        if key in ("images", "categories"):
            objects = [value for value in values if isinstance(value, dict)]
            if recognised(*((objects, []) if key == "images" else ([], objects))) == Protocol.lvis:
                return Protocol.lvis
    return Protocol.coco
