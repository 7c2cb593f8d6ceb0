"""The official `lvis` scorer, made to run on today's numpy without touching it or numpy."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from tasks.detection.labels.annotations import as_lvis
from tasks.detection.scoring.results import Detections

KEYS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")


class _Numpy:
    """numpy as of 2020, seen by `lvis.eval` alone: `np.float` was the builtin."""

    float = float

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def score_official(found: Detections, annotations: Mapping[str, Any]) -> dict[str, float | None]:
    """The same numbers from `lvis` 0.5.3 itself; slow and large, meant as the oracle.

    `lvis` fails on an empty list; detections that its own rules drop (of zero area) stand in for one. Categories
    without a frequency belong to no group.
    """
    import lvis.eval
    from lvis import LVIS, LVISEval, LVISResults

    logging.getLogger("lvis").setLevel(logging.ERROR)
    lvis.eval.np = _Numpy()
    data = as_lvis(annotations)
    # lvis writes into what it is given
    truth = LVIS.__new__(LVIS)
    truth.logger = logging.getLogger("lvis")
    grouped = all("frequency" in c for c in data["categories"])
    truth.dataset = {
        **data,
        "categories": [{"frequency": "f", **c} for c in data["categories"]],
        "annotations": [{"area": a["bbox"][2] * a["bbox"][3], **a} for a in data["annotations"]],
    }
    truth._create_index()
    rows = [
        {"image_id": int(i), "category_id": int(c), "score": float(s), "bbox": [float(v) for v in b]}
        for i, c, s, b in zip(found.image_id, found.category_id, found.score, found.box, strict=True)
    ]
    first = (data["images"][0]["id"], data["categories"][0]["id"])
    rows = rows or [{"image_id": first[0], "category_id": first[1], "score": 0.0, "bbox": [0.0, 0.0, 0.0, 0.0]}]
    scorer = LVISEval(truth, LVISResults(truth, rows), "bbox")
    scorer.run()
    numbers = {k: float(scorer.results[k]) for k in KEYS} | {"AR": float(scorer.results["AR@300"])}
    missing = {k for k, v in numbers.items() if v < 0} | (set() if grouped else {"APr", "APc", "APf"})
    return {k: None if k in missing else v for k, v in numbers.items()}
