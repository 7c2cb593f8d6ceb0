"""What the two protocols of box AP do differently, as data."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.data.boxes.protocols import Protocol
from tasks.protocols import protocol


@dataclass(frozen=True)
class Rules:
    """Rules of a protocol.

    Args:
        limit: detections that count, of an image (`over_categories`) or of each category in each image.
        drops_empty: detections whose area is not positive and finite are passed over instead of being wrong.
        by_frequency: AP of rare, common and frequent categories is reported.
        short_lists: recall is reported for the best so many of each category in each image too.
        recall_by_area: recall of small, medium and large boxes is reported.
    """

    limit: int
    over_categories: bool
    drops_empty: bool
    by_frequency: bool = False
    short_lists: tuple[int, ...] = ()
    recall_by_area: bool = False


RULES = {
    # lvis 0.5.3: results.py (limit over categories), lvis.py get_ann_ids (areas), eval.py (groups, AR@300)
    Protocol.lvis: Rules(
        protocol("detection").value("detections"), over_categories=True, drops_empty=True, by_frequency=True
    ),
    # pycocotools 2.0: cocoeval.py, Params.setDetParams and summarize
    Protocol.coco: Rules(
        protocol("detection").value("detections_coco"),
        over_categories=False,
        drops_empty=False,
        short_lists=(1, 10),
        recall_by_area=True,
    ),
}
