"""Whose rules labels are scored by, recognised by the fields that they have.

LVIS asks about few categories an image and says which (`neg_category_ids`, `not_exhaustive_category_ids`), and groups
categories by `frequency`; COCO labels every category in every image and marks crowds (`iscrowd`). So: a file in which
any image or category has one of LVIS' fields is LVIS; any other is COCO.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

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
