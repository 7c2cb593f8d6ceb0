"""Meters that keep every record by sample id, so that merging is exact and metrics are functions of records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tasks.retrieval.ranks import Ranks, chance, compute_ranks
from tasks.task import Batch, TaskError, View


class RecordMeter:
    """Records of each view, on the CPU; `merge` gathers them from all processes, drops repeated ids and sorts."""

    def __init__(self) -> None:
        self._kept: dict[View, list[dict[str, Tensor]]] = {}

    def update(self, records: Mapping[str, Tensor], batch: Batch, view: View, part: str) -> None:
        kept = {k: v.detach().cpu() for k, v in records.items()}
        for name, value in kept.items():
            assert len(value) == len(batch), f"record {name} has {len(value)} entries for {len(batch)} samples"
        self._kept.setdefault(view, []).append(kept | {"ids": batch.ids.detach().cpu()})

    def merge(self) -> None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            gathered: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(gathered, self._kept)
            merged: dict[View, list[dict[str, Tensor]]] = {}
            for other in gathered:
                for view, kept in other.items():
                    merged.setdefault(view, []).extend(kept)
            self._kept = merged

    def records(self) -> dict[View, dict[str, Tensor]]:
        """Of each view: every record in the order of the ids, each id once."""
        found = {}
        for view, kept in self._kept.items():
            joined = {k: torch.cat([r[k] for r in kept]) for k in kept[0]}
            ids = joined["ids"].numpy()
            order = torch.from_numpy(_first_of_each(ids))
            found[view] = {k: v[order] for k, v in joined.items()}
        return found


def _first_of_each(ids: Any) -> Any:
    import numpy as np

    return np.unique(ids, return_index=True)[1]


def rank_records(records: Mapping[str, Tensor]) -> tuple[Ranks, Tensor]:
    """Ranks from records of `Retrieval.predict`, and where each caption stands: bool [N, C]."""
    image, text, count = records["image"], records["text"], records["captions"]
    present = torch.arange(text.shape[1]) < count[:, None]
    pairs = torch.arange(len(image))[:, None].expand_as(present)[present]
    return compute_ranks(image.float(), text[present].float(), pairs), present


class RetrievalMeter(RecordMeter):
    """R@1/5/10, mean and median rank in both directions, with chance; per image `i2t_rank`, per caption `t2i_rank`."""

    def rows(self) -> list[tuple[View, dict[str, float], dict[str, Any] | None]]:
        """`t2i_rank` is int64 [N, C], 0 where an image has fewer captions than another.

        Raises: TaskError when nothing was seen.
        """
        if not self._kept:
            raise TaskError("no image was evaluated: the split is empty")
        rows = []
        for view, records in self.records().items():
            ranks, present = rank_records(records)
            t2i = torch.zeros(present.shape, dtype=torch.int64)
            t2i[present] = ranks.t2i
            metrics = ranks.metrics()
            metrics |= {f"chance_{k}": v for k, v in chance(len(ranks.i2t), len(ranks.t2i)).items()}
            rows.append((view, metrics, {"ids": records["ids"], "i2t_rank": ranks.i2t, "t2i_rank": t2i}))
        return rows
