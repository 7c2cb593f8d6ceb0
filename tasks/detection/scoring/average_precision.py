"""LVIS and COCO box AP without loops over boxes: the official numbers, in memory that does not grow with the pairs.

The official scorers (Gupta et al. 2019, `lvis` 0.5.3; Lin et al. 2014, `pycocotools`) ask every image x category x area
x threshold in Python. Here images are taken in shards; in a shard only pairs of overlap 0.5 or more are kept, and the
greedy matching runs over all image-category groups at once: first every group's best detection, then every second one.
"""

from __future__ import annotations

import numpy as np

from tasks.data.boxes.columns import FREQUENCIES
from tasks.detection.labels.annotations import Truth
from tasks.detection.scoring.matching import AREAS, IOUS, Judged, judge, outside
from tasks.detection.scoring.results import Detections
from tasks.detection.scoring.rules import RULES

RECALLS = np.linspace(0.0, 1.0, 101)


def _positives(truth: Truth) -> np.ndarray:
    """int64 [K, 4]: boxes of each category that count, by area."""
    counts, k = ~(outside(truth.area) | truth.ignore[:, None]), len(truth.category_ids)
    return np.stack([np.bincount(truth.category[counts[:, a]], minlength=k) for a in range(len(AREAS))], 1)


def accumulate(judged: Judged, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    """Precision [10, 101, K, 4] at fixed recalls and final recall [10, K, 4]; -1 where a category has no box."""
    boxes, k = _positives(truth), len(truth.category_ids)
    precision, recall = -np.ones((len(IOUS), len(RECALLS), k, len(AREAS))), -np.ones((len(IOUS), k, len(AREAS)))
    # ties in score: earlier images first; detections already lie by image
    order = np.lexsort((-judged.score, judged.category))
    cuts = np.searchsorted(judged.category[order], np.arange(k + 1))
    for c in np.flatnonzero(boxes[:, 0]):
        rows = order[cuts[c] : cuts[c + 1]]
        hits = np.cumsum(judged.hit[rows], 0, dtype=np.float64)
        misses = np.cumsum(judged.miss[rows], 0, dtype=np.float64)
        curve = hits / (hits + misses + np.spacing(1))
        curve = np.maximum.accumulate(curve[::-1], 0)[::-1]
        for a in np.flatnonzero(boxes[c]):
            reached = hits[:, :, a] / boxes[c, a]
            recall[:, c, a] = reached[-1] if len(rows) else 0.0
            for i in range(len(IOUS)):
                at = np.searchsorted(reached[:, i], RECALLS)
                good = at < len(rows)
                precision[i, :, c, a] = 0.0
                precision[i, good, c, a] = curve[at[good], i, a]
    return precision, recall


def short_recall(judged: Judged, truth: Truth, limit: int) -> np.ndarray:
    """Recall [10, K] of boxes of any area by the best `limit` of each category in each image; -1 without boxes."""
    boxes = _positives(truth)[:, 0]
    best = judged.rank < limit
    hits = np.zeros((len(boxes), len(IOUS)))
    np.add.at(hits, judged.category[best], judged.hit[best, :, 0])
    return np.where(boxes[:, None] > 0, hits / np.maximum(boxes, 1)[:, None], -1.0).T


def _mean(values: np.ndarray) -> float | None:
    values = values[values > -1]
    return float(values.mean()) if len(values) else None


def summarise(precision: np.ndarray, recall: np.ndarray, truth: Truth) -> dict[str, float | None]:
    """The protocol's numbers that need no shorter lists, as fractions; None where no category has a box of that kind
    (officially -1). `AR` is at the protocol's limit: `lvis` calls it AR@300, COCO AR at 100."""
    rules = RULES[truth.protocol]
    every = precision[:, :, :, 0]
    out = {"AP": _mean(every), "AP50": _mean(every[0]), "AP75": _mean(every[5])}
    out |= {f"AP{name}": _mean(precision[..., 1 + i]) for i, name in enumerate("sml")}
    if rules.by_frequency:
        out |= {f"AP{f}": _mean(every[:, :, truth.frequency == f]) for f in FREQUENCIES}
    out["AR"] = _mean(recall[:, :, 0])
    if rules.recall_by_area:
        out |= {f"AR{name}": _mean(recall[..., 1 + i]) for i, name in enumerate("sml")}
    return out


def box_scores(judged: Judged, truth: Truth) -> dict[str, float | None]:
    """LVIS: AP AP50 AP75 APs APm APl APr APc APf AR. COCO: AP AP50 AP75 APs APm APl AR ARs ARm ARl AR@1 AR@10.

    Example: `box_scores(judge(found, truth), truth)["AP"]`
    """
    short = {f"AR@{n}": _mean(short_recall(judged, truth, n)) for n in RULES[truth.protocol].short_lists}
    return summarise(*accumulate(judged, truth), truth) | short


def score_fast(found: Detections, truth: Truth) -> dict[str, float | None]:
    """`box_scores` of detections."""
    return box_scores(judge(found, truth), truth)
