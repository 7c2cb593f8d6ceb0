"""The official scorers `lvis`, made to run on today's numpy without touching it, and `pycocotools`, as oracles."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from tasks.data.boxes.protocols import Protocol
from tasks.detection.labels.annotations import as_lvis
from tasks.detection.scoring.results import FIELDS, Detections

LVIS_KEYS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")
COCO_KEYS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR@1", "AR@10", "AR", "ARs", "ARm", "ARl")  # order of `stats`


class _Numpy:
    """numpy as of 2020, seen by `lvis.eval` alone: `np.float` was the builtin."""

    float = float

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def score_official(found: Detections, annotations: Mapping[str, Any], protocol: Protocol) -> dict[str, float | None]:
    """The numbers of `box_scores` from `lvis` 0.5.3 or pycocotools itself; slow and large.

    Both fail on an empty list of detections, so one without area and score stands in for it. Both take a match with an
    annotation whose id is 0 for none.

    Args: annotations: labels that `read_truth` has accepted; they are not written to.
    """
    rows = [
        {"image_id": i, "category_id": c, "score": s, "bbox": b}
        for i, c, s, b in zip(*(getattr(found, name).tolist() for name in FIELDS), strict=True)
    ]  # fmt: skip
    first = (annotations["images"][0]["id"], annotations["categories"][0]["id"])
    rows = rows or [{"image_id": first[0], "category_id": first[1], "score": 0.0, "bbox": [0.0, 0.0, 0.0, 0.0]}]
    return {Protocol.lvis: _lvis, Protocol.coco: _coco}[protocol](rows, annotations)


def _lvis(rows: list[dict[str, Any]], annotations: Mapping[str, Any]) -> dict[str, float | None]:
    import lvis.eval
    from lvis import LVIS, LVISEval, LVISResults

    logging.getLogger("lvis").setLevel(logging.ERROR)
    lvis.eval.np = _Numpy()
    data = as_lvis(annotations)
    truth = LVIS.__new__(LVIS)
    truth.logger = logging.getLogger("lvis")
    grouped = all("frequency" in c for c in data["categories"])
    truth.dataset = {
        **data,
        "categories": [{"frequency": "f", **c} for c in data["categories"]],
        "annotations": [{"area": a["bbox"][2] * a["bbox"][3], **a} for a in data["annotations"]],
    }
    truth._create_index()
    scorer = LVISEval(truth, LVISResults(truth, rows), "bbox")
    scorer.run()
    numbers = {k: float(scorer.results[k]) for k in LVIS_KEYS} | {"AR": float(scorer.results["AR@300"])}
    missing = {k for k, v in numbers.items() if v < 0} | (set() if grouped else {"APr", "APc", "APf"})
    return {k: None if k in missing else v for k, v in numbers.items()}


def _coco(rows: list[dict[str, Any]], annotations: Mapping[str, Any]) -> dict[str, float | None]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress where our JSON goes
        truth = COCO()
        truth.dataset = {
            "images": list(annotations["images"]),
            "categories": list(annotations["categories"]),
            "annotations": [
                {"iscrowd": 0, "area": a["bbox"][2] * a["bbox"][3], **a} for a in annotations["annotations"]
            ],
        }
        truth.createIndex()
        scorer = COCOeval(truth, truth.loadRes(rows), "bbox")
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
    return {k: None if v < 0 else float(v) for k, v in zip(COCO_KEYS, scorer.stats, strict=True)}
