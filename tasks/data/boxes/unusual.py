"""Boxes that are wrong, and boxes that are only unusual."""

from __future__ import annotations

import numpy as np

from tasks.data.errors import Wrong

_EDGE = 0.01  # pixels: files round to as much


def check_boxes(box: np.ndarray, size: np.ndarray, where: str) -> None:
    """Boxes [N, 4] must be finite, of no negative side, and touch their image; `size` [N, 2] is (width, height).

    Boxes that reach over an edge are allowed: detectors and the official annotations have them.

    Raises: Wrong naming the first bad box.
    """
    finite = np.isfinite(box).all(1)
    positive = (box[:, 2:] >= 0).all(1)
    inside = (box[:, :2] <= size).all(1) & (box[:, :2] + box[:, 2:] >= 0).all(1)
    for good, why in ((finite, "is not finite"), (positive, "has a negative side"), (inside, "is outside the image")):
        if not good.all():
            i = int(np.argmin(good))
            sides = "x".join(f"{s:g}" for s in size[i])
            raise Wrong(f"{where} {i}: box {box[i].tolist()} {why} ({sides} px)")


def unusual_boxes(box: np.ndarray, size: np.ndarray) -> dict[str, int]:
    """How many boxes [N, 4] reach over an edge of their image (`size` [N, 2], width and height), lie wholly outside of
    it, or have a negative side.

    Example: `unusual_boxes(np.array([[90.0, 0, 20, 5]]), np.array([[100.0, 100]]))["beyond_image"]` is 1
    """
    low, high = box[:, :2], box[:, :2] + box[:, 2:]
    negative = (box[:, 2:] < 0).any(1)
    outside = ~negative & ((low >= size) | (high <= 0)).any(1)
    beyond = ~negative & ~outside & ((low < -_EDGE) | (high > size + _EDGE)).any(1)
    counts = {"beyond_image": beyond, "outside_image": outside, "negative_side": negative}
    return {name: int(values.sum()) for name, values in counts.items()}
