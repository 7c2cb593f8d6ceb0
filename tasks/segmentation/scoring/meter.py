"""Counts of every view and image, merged across processes, to rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tasks.contract import Batch, View
from tasks.contract.meters import gathered
from tasks.segmentation.scoring.confusion import chance_iou, class_scores, scores


class SegmentationMeter:
    """Keeps `[3, C]` counts for each view and image id; an image that is seen twice counts once.

    Args:
        drives: the drive of each image of the split, int64 [N], where its images are frames.

    Example: `meter.update({"counts": counts}, batch, view, "val"); meter.merge(); meter.rows()`
    """

    def __init__(self, classes: Sequence[str], drives: np.ndarray | None = None):
        self.classes, self.drives = tuple(classes), drives
        self.counts: dict[View, dict[int, Tensor]] = {}

    def update(self, records: Mapping[str, Tensor], batch: Batch, view: View, part: str) -> None:
        """`records["counts"]` int64 `[B, 3, C]`."""
        counts = records["counts"].cpu()
        assert counts.shape == (len(batch), 3, len(self.classes)), (counts.shape, len(batch), len(self.classes))
        self.counts.setdefault(view, {}).update(zip(batch.ids.tolist(), counts, strict=True))

    def merge(self) -> None:
        """Bring the counts of all processes together; integers, so the result is exact."""
        for other in gathered(self.counts):
            for view, images in other.items():
                self.counts.setdefault(view, {}).update(images)

    def drop(self, view: View) -> None:
        self.counts.pop(view, None)

    def rows(self) -> list[tuple[View, dict[str, float], dict[str, Any] | None]]:
        """Fractions `mIoU mAcc aAcc chance_mIoU`, `IoU/NAME` of each class that occurs; counts of each image, by id."""
        rows = []
        for view, images in self.counts.items():
            ids = sorted(images)
            counts = torch.stack([images[i] for i in ids])
            total = counts.sum(0)
            by_class = {f"IoU/{name}": value for name, value in class_scores(total, self.classes).items()}
            numbers = {**scores(total), "chance_mIoU": chance_iou(total), **by_class}
            drives = {} if self.drives is None else {"drive": torch.from_numpy(self.drives[ids])}
            rows.append((view, numbers, {"ids": torch.tensor(ids), "counts": counts, **drives}))
        return rows
