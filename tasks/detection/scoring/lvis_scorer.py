"""LVIS box AP without loops over boxes: the official numbers, in memory that does not grow with the labels' pairs.

The official scorer (Gupta et al. 2019, `lvis` 0.5.3) asks every image x category x area x threshold in Python. Here
images are taken in shards; in a shard only pairs of overlap 0.5 or more are kept, and the greedy matching runs over
all image-category groups at once: first every group's best detection, then every second one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.detection.labels.annotations import FREQUENCIES, Truth
from tasks.detection.scoring.results import Detections, best_per_image, check_results

MAX_DETECTIONS = 300
IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
AREAS = np.array([[0, 1e5**2], [0, 32**2], [32**2, 96**2], [96**2, 1e5**2]], np.float64)  # all, small, medium, large
PAIRS = 2_000_000  # pairs of detection and box a shard may hold


@dataclass(frozen=True)
class Judged:
    """M detections that count: `place` [M] among those found, `score` [M], `category` [M]; `hit` and `miss` bool
    [M, 10, 4] over IoU and area."""

    place: np.ndarray
    score: np.ndarray
    category: np.ndarray
    hit: np.ndarray
    miss: np.ndarray


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU [P] of boxes x, y, w, h [P, 4] row by row, in the operation order of pycocotools."""
    low = np.maximum(a[:, :2], b[:, :2])
    side = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:]) - low
    shared = np.where((side > 0).all(1), side[:, 0] * side[:, 1], 0.0)
    return shared / (a[:, 2] * a[:, 3] + b[:, 2] * b[:, 3] - shared)


def _ranges(start: np.ndarray, count: np.ndarray) -> np.ndarray:
    """`start[i] + 0 .. count[i]-1`, one after the other."""
    offset = np.repeat(np.cumsum(count) - count, count)
    return np.repeat(start, count) + np.arange(count.sum()) - offset


def outside(area: np.ndarray) -> np.ndarray:
    """bool [M, 4]: the area is not in the range; both ends belong to a range."""
    return (area[:, None] < AREAS[:, 0]) | (area[:, None] > AREAS[:, 1])


def match(
    group: np.ndarray, box: np.ndarray, truth_group: np.ndarray, truth_box: np.ndarray, truth_ignored: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Greedy matching in each group, at 10 overlaps and 4 areas.

    Args: group int64 [M] sorted, detections of a group by falling score; box [M, 4]; truth_group [N] sorted;
        truth_box [N, 4]; truth_ignored bool [N, 4].
    Returns: bool [M, 10, 4] twice: matched a box that counts, matched one to be ignored.
    """
    shape = (len(group), len(IOUS), len(AREAS))
    counted, ignored = np.zeros(shape, bool), np.zeros(shape, bool)
    first = np.searchsorted(truth_group, group, "left")
    count = np.searchsorted(truth_group, group, "right") - first
    detection, target = np.repeat(np.arange(len(group)), count), _ranges(first, count)
    overlap = box_iou(box[detection], truth_box[target])
    keep = overlap >= IOUS[0]
    detection, target, overlap = detection[keep], target[keep], overlap[keep]
    if not len(detection):
        return counted, ignored
    # By rising overlap, later boxes winning ties: a pair's place is then its rank among the choices of its detection
    order = np.lexsort((target, overlap, detection))
    detection, target, overlap = detection[order], target[order], overlap[order]
    reaches = overlap[:, None] >= np.minimum(IOUS, 1 - 1e-10)
    starts = np.flatnonzero(np.r_[True, np.diff(detection) > 0])
    ends = np.r_[starts[1:], len(detection)]
    who = detection[starts]
    turn = np.arange(len(who)) - np.searchsorted(group[who], group[who], "left")
    taken = np.zeros((len(truth_group), *shape[1:]), bool)
    by_turn = np.argsort(turn, kind="stable")
    cuts = np.searchsorted(turn[by_turn], np.arange(turn.max() + 2))
    for low, high in zip(cuts[:-1], cuts[1:], strict=True):
        now = by_turn[low:high]
        length = ends[now] - starts[now]
        pair = _ranges(starts[now], length)
        free = reaches[pair][:, :, None] & ~taken[target[pair]]
        # any box that counts is preferred to any to be ignored
        rank = np.arange(len(pair))[:, None] + np.where(truth_ignored[target[pair]], 0, len(pair))
        best = np.maximum.reduceat(np.where(free, rank[:, None, :], -1), np.cumsum(length) - length, axis=0)
        d, i, a = np.nonzero(best >= 0)
        value = best[d, i, a]
        taken[target[pair[value % len(pair)]], i, a] = True
        real = value >= len(pair)
        counted[who[now[d[real]]], i[real], a[real]] = True
        ignored[who[now[d[~real]]], i[~real], a[~real]] = True
    return counted, ignored


def judge(found: Detections, truth: Truth, limit: int = MAX_DETECTIONS) -> Judged:
    """Match detections image shard by image shard.

    Raises: TaskError for detections of unknown images or categories, or boxes outside their image.
    """
    image, category = check_results(found, truth)
    kept = best_per_image(image, found.score, limit)
    key = image * len(truth.category_ids) + category
    # in this order, as officially: cut to 300 an image, drop empty boxes, drop categories nobody looked for
    kept = kept[found.box[kept, 2] * found.box[kept, 3] > 0]
    kept = kept[np.isin(key[kept], truth.known)]
    kept = kept[np.argsort(key[kept], kind="stable")]
    group, box = key[kept], found.box[kept]
    truth_key = truth.image * len(truth.category_ids) + truth.category
    truth_order = np.argsort(truth_key, kind="stable")
    truth_group, truth_box = truth_key[truth_order], truth.box[truth_order]
    truth_ignored = outside(truth.area[truth_order]) | truth.ignore[truth_order, None]
    excused = outside(box[:, 2] * box[:, 3]) | np.isin(group, truth.partial)[:, None]
    hit, miss = (np.zeros((len(kept), len(IOUS), len(AREAS)), bool) for _ in range(2))
    load = np.cumsum(np.searchsorted(truth_group, group, "right") - np.searchsorted(truth_group, group, "left") + 1)
    low = 0
    while low < len(kept):
        high = int(np.searchsorted(load, (load[low - 1] if low else 0) + PAIRS))
        # a group is never torn
        high = int(np.searchsorted(group, group[min(max(high, low), len(group) - 1)], "right"))
        t = slice(*np.searchsorted(truth_group, [group[low], group[high - 1] + 1]))
        counted, ignored = match(group[low:high], box[low:high], truth_group[t], truth_box[t], truth_ignored[t])
        hit[low:high] = counted
        miss[low:high] = ~(counted | ignored | excused[low:high, None, :])
        low = high
    return Judged(kept, found.score[kept], category[kept], hit, miss)


def accumulate(judged: Judged, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    """Precision [10, 101, K, 4] at fixed recalls and final recall [10, K, 4]; -1 where a category has no box."""
    k = len(truth.category_ids)
    precision, recall = -np.ones((len(IOUS), len(RECALLS), k, len(AREAS))), -np.ones((len(IOUS), k, len(AREAS)))
    counts = ~(outside(truth.area) | truth.ignore[:, None])
    boxes = np.stack([np.bincount(truth.category[counts[:, a]], minlength=k) for a in range(len(AREAS))], 1)
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


def summarise(precision: np.ndarray, recall: np.ndarray, truth: Truth) -> dict[str, float | None]:
    """The ten LVIS numbers as fractions; None where no category has a box of that kind (`lvis` says -1)."""

    def mean(values: np.ndarray) -> float | None:
        values = values[values > -1]
        return float(values.mean()) if len(values) else None

    every = precision[:, :, :, 0]
    out = {"AP": mean(every), "AP50": mean(every[0]), "AP75": mean(every[5])}
    out |= {f"AP{name}": mean(precision[..., 1 + i]) for i, name in enumerate("sml")}
    out |= {f"AP{f}": mean(every[:, :, truth.frequency == f]) for f in FREQUENCIES}
    return out | {"AR": mean(recall[:, :, 0])}


def score_fast(found: Detections, truth: Truth) -> dict[str, float | None]:
    """AP AP50 AP75 APs APm APl APr APc APf AR of detections."""
    return summarise(*accumulate(judge(found, truth), truth), truth)
