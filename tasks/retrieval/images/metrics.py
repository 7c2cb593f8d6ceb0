"""Metrics of image-to-image retrieval: Recall@K and mAP@R over classes, mAP of revisited Oxford and Paris."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tasks.contract import TaskError
from tasks.retrieval.search import nearest

CUTOFFS = (1, 2, 4, 8)  # Song et al. 2016 for Cars and CUB; SOP uses 1, 10, 100


def class_retrieval(
    queries: np.ndarray,
    gallery: np.ndarray,
    query_labels: np.ndarray,
    gallery_labels: np.ndarray,
    exclude: np.ndarray | None = None,
    cutoffs: Sequence[int] = CUTOFFS,
    kind: str = "flat",
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Recall@K and mAP@R of vectors [Q, D] and [G, D] with integer labels [Q], [G].

    Recall@K (Song et al. 2016): share of queries with one of its class among the first K. mAP@R (Musgrave et al. 2020):
    R items share the query's class; the mean over the first R places of precision there, counted where the item is
    right. Queries whose class is nowhere else in the gallery cannot be answered and are left out of both.

    Args: exclude: for each query its own row in the gallery (-1: none).
    Returns: metrics (with `chance_R@1`), and per query `R@1` and `AP@R`, NaN where left out, and `top`, the gallery
    rows of its first five.
    Raises: TaskError where no query can be answered.

    Example: `class_retrieval(x, x, labels, labels, exclude=np.arange(len(x)))[0]["R@1"]`
    """
    query_labels, gallery_labels = np.asarray(query_labels), np.asarray(gallery_labels)
    assert len(query_labels) == len(queries) and len(gallery_labels) == len(gallery)
    classes, sizes = np.unique(gallery_labels, return_counts=True)
    found = np.searchsorted(classes, query_labels).clip(max=len(classes) - 1)
    right = np.where(classes[found] == query_labels, sizes[found], 0)
    own = 0
    if exclude is not None:
        own = (exclude >= 0) & (gallery_labels[exclude] == query_labels)
        right = right - own
    answerable = right > 0
    if not answerable.any():
        raise TaskError("no query has another image of its class in the gallery")
    depth = min(max(int(right.max()), *cutoffs), len(gallery) - (exclude is not None))
    _, rows = nearest(queries, gallery, depth, kind, exclude)
    hit = (gallery_labels[rows] == query_labels[:, None]) & (rows >= 0)
    precision = hit.cumsum(1) / np.arange(1, depth + 1)
    within = np.arange(depth) < right[:, None]
    average = (precision * hit * within).sum(1) / right.clip(min=1)
    metrics = {f"R@{k}": float(hit[answerable, :k].any(1).mean()) for k in cutoffs}
    others = len(gallery) - (0 if exclude is None else (exclude >= 0))
    metrics["mAP@R"] = float(average[answerable].mean())
    metrics["chance_R@1"] = float((right / others)[answerable].mean())
    blank = np.where(answerable, 0.0, np.nan)
    return metrics, {"R@1": hit[:, 0] + blank, "AP@R": average + blank, "top": rows[:, :5].astype(np.int64)}


REVISITED = {  # which images are right, and which are ignored, in each setting
    "easy": (("easy",), ("junk", "hard")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("junk", "easy")),
}


def average_precision(places: np.ndarray, total: int) -> float:
    """Area under precision and recall by trapezoids, as the code of Oxford buildings computes it.

    Args: places: int, ascending, where the right items stand (from 0, ignored items taken out). total: right items.
    """
    order = np.arange(len(places))
    before = np.where(places == 0, 1.0, order / np.maximum(places, 1))
    after = (order + 1) / (places + 1)
    return float(((before + after) / 2).sum() / total)


def revisited_map(rows: np.ndarray, truth: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, float]:
    """mAP of revisited Oxford and Paris (Radenovic et al. 2018), equal to the official `compute_map`.

    Args:
        rows: int [Q, G], gallery images of each query, best first, all of them.
        truth: for each query the gallery rows that are `easy`, `hard` and `junk`.

    Returns: `mAP_easy`, `mAP_medium`, `mAP_hard`; queries without a right image in a setting are left out of it, NaN
    where all are.
    Raises: TaskError where lists and truth do not fit.

    Example: `revisited_map(rows, gnd["gnd"])["mAP_medium"]`
    """
    if len(rows) != len(truth):
        raise TaskError(f"{len(rows)} ranked lists for {len(truth)} queries")
    count = rows.shape[1]
    result = {}
    for name, (right_names, ignored_names) in REVISITED.items():
        values = []
        for row, own in zip(rows, truth, strict=True):
            right = np.concatenate([np.asarray(own[n], dtype=np.int64) for n in right_names])
            ignored = np.concatenate([np.asarray(own[n], dtype=np.int64) for n in ignored_names])
            for index in (*right, *ignored):
                if not 0 <= index < count:
                    raise TaskError(f"the truth names gallery image {index}; there are 0 to {count - 1}")
            if not len(right):
                continue
            kept = row[~np.isin(row, ignored)]
            values.append(average_precision(np.flatnonzero(np.isin(kept, right)), len(right)))
        result[f"mAP_{name}"] = float(np.mean(values)) if values else float("nan")
    return result
