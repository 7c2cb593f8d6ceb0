"""The meter of landmarks: queries against the gallery, three settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from tasks.contract import View
from tasks.contract.meters import RecordMeter
from tasks.data.sets.landmarks import GRADES
from tasks.retrieval.images.metrics import revisited_map
from tasks.retrieval.search import nearest

SETTINGS = ("easy", "medium", "hard")


class LandmarkMeter(RecordMeter):
    """mAP easy, medium, hard of each view; the average precision of each query is kept, NaN where it has no answer."""

    def __init__(self, answers: list[Mapping[str, Any]], split: str):
        super().__init__()
        self.answers, self.split = answers, split

    def narrow(self, part: str, ids: Sequence[int]) -> None:
        """A smoke test: some queries, or the answers that are in a part of the gallery."""
        if part == self.split:
            self.answers = [self.answers[i] for i in ids]
        else:
            self.answers = [
                {grade: np.flatnonzero(np.isin(ids, own[grade])) for grade in GRADES} for own in self.answers
            ]

    def rows(self) -> list[tuple[View, dict[str, float], dict[str, Any] | None]]:
        """Raises: TaskError when nothing was seen."""
        rows = []
        for view, parts in self.parts().items():
            queries, gallery = (parts[p]["vector"].float().numpy() for p in (self.split, "gallery"))
            _, ranked = nearest(queries, gallery, len(gallery))
            each = [revisited_map(ranked[i : i + 1], self.answers[i : i + 1]) for i in range(len(queries))]
            values = {f"mAP_{s}": torch.tensor([e[f"mAP_{s}"] for e in each]) for s in SETTINGS}
            rows.append((view, revisited_map(ranked, self.answers), {"ids": parts[self.split]["ids"], **values}))
        return rows
