"""The meter of image-text retrieval: ranks in both directions out of the embeddings of one pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tasks.contract import View
from tasks.contract.meters import RecordMeter
from tasks.retrieval.ranks import Ranks, chance, compute_ranks

TOP = 5  # images kept of each query, for pictures
TILE = 1024


def rank_records(records: Mapping[str, Tensor]) -> tuple[Ranks, Tensor]:
    """Ranks from records of `Retrieval.predict`, and where each caption stands: bool [N, C]."""
    image, text, count = records["image"], records["text"], records["captions"]
    present = torch.arange(text.shape[1]) < count[:, None]
    pairs = torch.arange(len(image))[:, None].expand_as(present)[present]
    return compute_ranks(image.float(), text[present].float(), pairs), present


def top_images(records: Mapping[str, Tensor]) -> Tensor:
    """int64 [N, 5]: the images nearest to the first caption of each image, best first (-1 where there are fewer)."""
    image, first = records["image"].float(), records["text"][:, 0].float()
    depth = min(TOP, len(image))
    rows = [(first[i : i + TILE] @ image.T).topk(depth, dim=1).indices for i in range(0, len(first), TILE)]
    return torch.nn.functional.pad(records["ids"][torch.cat(rows)], (0, TOP - depth), value=-1)


class RetrievalMeter(RecordMeter):
    """R@1/5/10, mean and median rank in both directions, with chance; per image `i2t_rank`, per caption `t2i_rank`."""

    def rows(self) -> list[tuple[View, dict[str, float], dict[str, Any] | None]]:
        """`t2i_rank` is int64 [N, C], 0 where an image has fewer captions than another; `t2i_top` as `top_images`.

        Raises: TaskError when nothing was seen.
        """
        rows = []
        for view, records in self.records().items():
            ranks, present = rank_records(records)
            t2i = torch.zeros(present.shape, dtype=torch.int64)
            t2i[present] = ranks.t2i
            metrics = ranks.metrics()
            metrics |= {f"chance_{k}": v for k, v in chance(len(ranks.i2t), len(ranks.t2i)).items()}
            kept = {"ids": records["ids"], "i2t_rank": ranks.i2t, "t2i_rank": t2i, "t2i_top": top_images(records)}
            rows.append((view, metrics, kept))
        return rows
