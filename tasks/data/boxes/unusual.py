"""Boxes that are wrong, and boxes that are only unusual."""

from __future__ import annotations

import numpy as np

_EDGE = 0.01  # pixels: files round to as much


def box_faults(box: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Places int64 [M] of the boxes [N, 4] that cannot be labels, with the reason of each.

    Those are boxes of a negative side, and wholly outside their image; `size` [N, 2] is (width, height). Boxes that
    reach over an edge are allowed: official annotations have them.

    Example: `box_faults(np.array([[0.0, 0, -5, 5]]), np.array([[9.0, 9]]))[1] == ["has a negative side"]`
    """
    negative = np.asarray((box[:, 2:] < 0).any(1))
    outside = ~negative & ((box[:, :2] > size) | (box[:, :2] + box[:, 2:] < 0)).any(1)
    bad = np.flatnonzero(negative | outside)
    return bad, ["has a negative side" if negative[i] else "is outside the image" for i in bad]


def unusual_boxes(box: np.ndarray, size: np.ndarray) -> dict[str, int]:
    """How many boxes [N, 4] reach over an edge of their image (`size` [N, 2], width and height), lie wholly outside of
    it, or have a negative side.

    Example: `unusual_boxes(np.array([[90.0, 0, 20, 5]]), np.array([[100.0, 100]]))["beyond_image"]` is 1
    """
    low, high = box[:, :2], box[:, :2] + box[:, 2:]
    negative = np.asarray((box[:, 2:] < 0).any(1))
    outside = ~negative & ((low >= size) | (high <= 0)).any(1)
    beyond = ~negative & ~outside & ((low < -_EDGE) | (high > size + _EDGE)).any(1)
    counts = {"beyond_image": beyond, "outside_image": outside, "negative_side": negative}
    return {name: int(values.sum()) for name, values in counts.items()}
