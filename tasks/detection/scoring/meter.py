"""The meter of detection: boxes of every view, scored when all images are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tasks.contract import TaskError, View
from tasks.contract.meters import RecordMeter
from tasks.detection.labels.annotations import Truth
from tasks.detection.scoring.average_precision import box_scores
from tasks.detection.scoring.matching import judge
from tasks.detection.scoring.resampling import judged_per_image
from tasks.detection.scoring.results import Detections


class DetectionMeter(RecordMeter):
    """Box AP of each view by the rules of its labels, scored once all images are there."""

    def __init__(self, truth: Truth, split: str):
        super().__init__()
        self.truth, self.split = truth, split
        self._places = np.arange(len(truth.image_ids))  # of its images in the split

    def narrow(self, part: str, ids: Sequence[int]) -> None:
        """A smoke test: AP over these images alone."""
        self.truth, self._places = self.truth.of_images(ids), np.asarray(ids)

    def detections(self, records: Mapping[str, Tensor]) -> Detections:
        """Records of one view as columns; ids are places in the split's sorted image ids."""
        truth = self.truth
        kept = records["score"].shape[1]
        image = truth.image_ids[np.searchsorted(self._places, records["ids"].numpy())].repeat(kept)
        category = truth.category_ids[records["category"].flatten().long().numpy()]
        return Detections(
            image, category, records["score"].flatten().double().numpy(), records["box"].flatten(0, 1).double().numpy()
        )

    def rows(self) -> list[tuple[View, dict[str, float], dict[str, Any] | None]]:
        """Numbers of groups without a box are left out; per image its boxes and what `judged_per_image` says of them.

        Raises: TaskError when images of the split were not seen, because AP over a part is another number.
        """
        truth, rows = self.truth, []
        for view, records in self.records().items():
            if len(records["ids"]) != len(truth.image_ids):
                raise TaskError(f"{len(records['ids'])} of {len(truth.image_ids)} images of {self.split} were scored")
            judged = judge(self.detections(records), truth)
            numbers = box_scores(judged, truth)
            own = judged_per_image(judged, truth, records["score"].shape[1])
            kept = {**records, **{name: torch.from_numpy(values) for name, values in own.items()}}
            rows.append((view, {k: v for k, v in numbers.items() if v is not None}, kept))
        return rows
