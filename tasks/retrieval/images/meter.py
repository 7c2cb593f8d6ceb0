"""The meter of image-to-image retrieval: every view searched within itself and across grids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tasks.contract import View
from tasks.contract.meters import RecordMeter
from tasks.retrieval.images.metrics import class_retrieval


class ImageMeter(RecordMeter):
    """Recall@K and mAP@R of each view within itself; `R@1_gallery_HxW` and `mAP@R_gallery_HxW` across grids,
    the former of each query too."""

    def __init__(self, cutoffs: tuple[int, ...], index: str, cross_grid: bool):
        super().__init__()
        self.cutoffs, self.index, self.cross_grid = cutoffs, index, cross_grid

    def rows(self) -> list[tuple[View, dict[str, float], dict[str, Any] | None]]:
        """Raises: TaskError when nothing was seen, or no class has two images."""
        found, rows = self.records(), []
        for view, records in found.items():
            metrics, values = self._search(records, records)
            for other, gallery in found.items() if self.cross_grid else ():
                # only the grid may differ: another resize method is another question
                if other.grid != view.grid and (other.resize, other.options) == (view.resize, view.options):
                    across, hits = self._search(records, gallery)
                    place = f"gallery_{other.grid[0]}x{other.grid[1]}"
                    metrics |= {f"{name}_{place}": across[name] for name in ("R@1", "mAP@R")}
                    values[f"R@1_{place}"] = hits["R@1"]
            values = {k: torch.from_numpy(v) for k, v in values.items()}
            values["top"] = torch.where(values["top"] < 0, -1, records["ids"][values["top"]])
            rows.append((view, metrics, {"ids": records["ids"], **values}))
        return rows

    def _search(self, queries: Mapping[str, Tensor], gallery: Mapping[str, Tensor]) -> tuple[dict, dict]:
        assert torch.equal(queries["ids"], gallery["ids"]), "views of one pass must have seen the same images"
        return class_retrieval(
            queries["vector"].float().numpy(), gallery["vector"].float().numpy(), queries["label"].numpy(),
            gallery["label"].numpy(), np.arange(len(queries["ids"])), self.cutoffs, self.index,
        )  # fmt: skip
