"""Which detections match which boxes, as `lvis` and `pycocotools` decide it, for all images and categories at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.detection.labels.annotations import Truth
from tasks.detection.scoring.results import Detections, best_per_group, check_results
from tasks.detection.scoring.rules import RULES

IOUS = np.linspace(0.5, 0.95, 10)
AREAS = np.array([[0, 1e5**2], [0, 32**2], [32**2, 96**2], [96**2, 1e5**2]], np.float64)  # all, small, medium, large
PAIRS = 2_000_000  # pairs of detection and box a shard may hold


@dataclass(frozen=True)
class Judged:
    """M detections that count: `place` [M] among those given, `score`, `category` [M], `rank` [M] in its category and
    image from 0; `hit` and `miss` bool [M, 10, 4] over IoU and area."""

    place: np.ndarray
    score: np.ndarray
    category: np.ndarray
    rank: np.ndarray
    hit: np.ndarray
    miss: np.ndarray


def box_iou(a: np.ndarray, b: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """IoU [P] of boxes x, y, w, h [P, 4] row by row, in the operation order of pycocotools; where b is a crowd (bool
    [P]) the share of a that is in b."""
    low = np.maximum(a[:, :2], b[:, :2])
    side = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:]) - low
    shared = np.where((side > 0).all(1), side[:, 0] * side[:, 1], 0.0)
    own = a[:, 2] * a[:, 3]
    whole = np.where(crowd, own, own + b[:, 2] * b[:, 3] - shared)
    return np.divide(shared, whole, out=np.zeros(len(shared)), where=shared > 0)


def ranges(start: np.ndarray, count: np.ndarray) -> np.ndarray:
    """`start[i] + 0 .. count[i]-1`, one after the other."""
    offset = np.repeat(np.cumsum(count) - count, count)
    return np.repeat(start, count) + np.arange(count.sum()) - offset


def outside(area: np.ndarray) -> np.ndarray:
    """bool [M, 4]: the area is not in the range; both ends belong to a range."""
    return (area[:, None] < AREAS[:, 0]) | (area[:, None] > AREAS[:, 1])


def match(
    group: np.ndarray,
    box: np.ndarray,
    truth_group: np.ndarray,
    truth_box: np.ndarray,
    truth_ignored: np.ndarray,
    truth_crowd: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Greedy matching in each group, at 10 overlaps and 4 areas. A crowd may be matched many times.

    Args: group int64 [M] sorted, detections of a group by falling score; box [M, 4]; truth_group [N] sorted;
        truth_box [N, 4]; truth_ignored bool [N, 4]; truth_crowd bool [N].
    Returns: bool [M, 10, 4] twice: matched a box that counts, matched one to be ignored.
    """
    shape = (len(group), len(IOUS), len(AREAS))
    counted, ignored = np.zeros(shape, bool), np.zeros(shape, bool)
    first = np.searchsorted(truth_group, group, "left")
    count = np.searchsorted(truth_group, group, "right") - first
    detection, target = np.repeat(np.arange(len(group)), count), ranges(first, count)
    overlap = box_iou(box[detection], truth_box[target], truth_crowd[target])
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
        pair = ranges(starts[now], length)
        free = reaches[pair][:, :, None] & ~taken[target[pair]]
        # any box that counts is preferred to any to be ignored
        rank = np.arange(len(pair))[:, None] + np.where(truth_ignored[target[pair]], 0, len(pair))
        best = np.maximum.reduceat(np.where(free, rank[:, None, :], -1), np.cumsum(length) - length, axis=0)
        d, i, a = np.nonzero(best >= 0)
        value = best[d, i, a]
        matched = target[pair[value % len(pair)]]
        taken[matched, i, a] = ~truth_crowd[matched]
        real = value >= len(pair)
        counted[who[now[d[real]]], i[real], a[real]] = True
        ignored[who[now[d[~real]]], i[~real], a[~real]] = True
    return counted, ignored


def judge(found: Detections, truth: Truth, limit: int | None = None) -> Judged:
    """Match detections image shard by image shard, by the rules of the labels' protocol.

    Args: limit: another one than that of the protocol (see `Rules`).
    Raises: Wrong for detections of unknown images or categories, and for boxes and scores that are not finite.
    """
    rules = RULES[truth.protocol]
    image, category = check_results(found, truth)
    key = image * len(truth.category_ids) + category
    kept = best_per_group(image if rules.over_categories else key, found.score, limit or rules.limit)
    area = found.box[:, 2] * found.box[:, 3]
    # in this order, as officially: cut, drop empty boxes, drop categories nobody looked for
    if rules.drops_empty:
        kept = kept[(area[kept] > 0) & (area[kept] < np.inf)]
    if truth.known is not None:
        kept = kept[np.isin(key[kept], truth.known)]
    kept = kept[np.argsort(key[kept], kind="stable")]
    group, box = key[kept], found.box[kept]
    truth_key = truth.image * len(truth.category_ids) + truth.category
    truth_order = np.argsort(truth_key, kind="stable")
    truth_group, truth_box = truth_key[truth_order], truth.box[truth_order]
    truth_ignored = outside(truth.area[truth_order]) | truth.ignore[truth_order, None]
    truth_crowd = truth.crowd[truth_order]
    excused = outside(area[kept]) | np.isin(group, truth.partial)[:, None]
    hit, miss = (np.zeros((len(kept), len(IOUS), len(AREAS)), bool) for _ in range(2))
    load = np.cumsum(np.searchsorted(truth_group, group, "right") - np.searchsorted(truth_group, group, "left") + 1)
    low = 0
    while low < len(kept):
        high = int(np.searchsorted(load, (load[low - 1] if low else 0) + PAIRS))
        # a group is never torn
        high = int(np.searchsorted(group, group[min(max(high, low), len(group) - 1)], "right"))
        t = slice(*np.searchsorted(truth_group, [group[low], group[high - 1] + 1]))
        counted, ignored = match(
            group[low:high], box[low:high], truth_group[t], truth_box[t], truth_ignored[t], truth_crowd[t]
        )
        hit[low:high] = counted
        miss[low:high] = ~(counted | ignored | excused[low:high, None, :])
        low = high
    rank = np.arange(len(group)) - np.searchsorted(group, group, "left")
    return Judged(kept, found.score[kept], category[kept], rank, hit, miss)
