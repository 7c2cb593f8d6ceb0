"""AP over resampled images, from what is kept of each image: no labels and no second matching are needed."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from tasks.detection.labels.annotations import Truth
from tasks.detection.scoring.average_precision import RECALLS
from tasks.detection.scoring.matching import IOUS, Judged, outside

_BITS = (1 << np.arange(len(IOUS))).astype(np.uint16)


def judged_per_image(judged: Judged, truth: Truth, kept: int) -> dict[str, np.ndarray]:
    """What decides AP, by image: `hit` and `miss` uint16 [N, kept], bit i for overlap `IOUS[i]`, and `there` int16
    [N, M], the category of each box that counts, -1 after the last."""
    images = len(truth.image_ids)
    found = {}
    for name, values in (("hit", judged.hit), ("miss", judged.miss)):
        bits = np.zeros(images * kept, np.uint16)
        bits[judged.place] = (values[:, :, 0] * _BITS).sum(1)
        found[name] = bits.reshape(images, kept)
    counts = ~(outside(truth.area)[:, 0] | truth.ignore)
    image, category = truth.image[counts], truth.category[counts]
    order = np.argsort(image, kind="stable")
    image, category = image[order], category[order]
    slot = np.arange(len(image)) - np.searchsorted(image, image, "left")
    there = np.full((images, int(slot.max(initial=0)) + 1), -1, np.int16)
    there[image, slot] = category
    return found | {"there": there}


def resampled_ap(
    score: np.ndarray, category: np.ndarray, hit: np.ndarray, miss: np.ndarray, there: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """AP [draws] when image i is there `weights[:, i]` times.

    Equal to scoring a set in which images are repeated. Precision is only ever asked for where recall grows, so a
    category costs draws x (its hits), not draws x detections. NaN for a draw without boxes.

    Args: score, category, hit, miss [N, kept] and there [N, M] as of `judged_per_image`; weights [draws, N].

    Example: `resampled_ap(score, category, hit, miss, there, np.ones((1, len(score))))[0]` is the AP itself
    """
    image = np.repeat(np.arange(len(score)), score.shape[1])
    used = np.flatnonzero((hit | miss).ravel())
    used = used[np.lexsort((-score.ravel()[used], category.ravel()[used]))]
    image, hit, miss, named = image[used], hit.ravel()[used], miss.ravel()[used], category.ravel()[used]
    where, slots = np.nonzero(there >= 0)
    boxes = there[where, slots]
    times = np.ascontiguousarray(weights.T)  # [N, draws]: once, not for every category and overlap
    total, seen = np.zeros(len(weights)), np.zeros(len(weights))
    for c in np.unique(boxes):
        positives = times[where[boxes == c]].sum(0)
        rows = slice(*np.searchsorted(named, [c, c + 1]))
        present = positives > 0
        seen += present
        for bit in _BITS:
            areas = _area(image[rows], (hit[rows] & bit) > 0, (miss[rows] & bit) > 0, times, positives)
            total += np.where(present, areas, 0.0) / len(IOUS)
    return np.where(seen > 0, total / np.maximum(seen, 1), np.nan)


def _area(image: np.ndarray, hit: np.ndarray, miss: np.ndarray, times: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """Interpolated precision [draws] of one category at one overlap, its detections by falling score."""
    at = np.flatnonzero(hit)
    if not len(at):
        return np.zeros(times.shape[1])
    before = np.flatnonzero(miss[: at[-1]])
    between = csr_matrix((np.ones(len(before)), (np.searchsorted(at, before), image[before])), (len(at), len(times)))
    false = np.cumsum(between @ times, 0)
    true = np.cumsum(times[image[at]], 0)
    precision = true / (true + false + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1], 0)[::-1]
    points = np.searchsorted(RECALLS, true / np.maximum(positives, 1e-12), "right")
    return (precision * np.diff(points, axis=0, prepend=0)).sum(0) / len(RECALLS)
