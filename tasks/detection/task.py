"""Open-vocabulary detection as a task: every category is a query on every image."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tasks.detection.boxes import to_pixels, top_pairs
from tasks.detection.data import MINI, SOURCE, DetectionData, DetectionSet
from tasks.detection.lvis_scorer import MAX_DETECTIONS, score_fast
from tasks.detection.model import Detector
from tasks.detection.results import Detections
from tasks.detection.text import build_text_tower, category_queries
from tasks.retrieval.meter import RecordMeter
from tasks.task import Batch, Options, Task, TaskCard, TaskError, View, option

SIDE, MINI_SIDE = 720, 240


@dataclass(frozen=True)
class DetectionOptions(Options):
    """What can be chosen; `grid = side / patch`."""

    data: str = option("lvis", "train", "lvis, lvis_coco80, lvis_real, or a folder with train.json and val.json")
    side: int = option(0, "train", "pixels of the padded square; 0: 720, and 240 for the mini packs")
    text: str = option("ViT-B-16-quickgelu", "train", "open_clip model whose text tower reads the queries")
    merge: str = option("mul-ln", "train", "mul-ln, drop, none")
    objectness: bool = option(False, "train", "with OWLv2's objectness head")
    prompts: str = option("best", "eval", "best (7), clip (80), train (81), plain (1)")
    pad: float = option(0.5, "eval", "grey of the padding; published evaluations used 0, training 0.5")


class DetectionMeter(RecordMeter):
    """LVIS box AP of each view, scored by `score_fast` once all images are there."""

    def __init__(self, found: DetectionSet, split: str):
        super().__init__()
        self.found, self.split = found, split

    def detections(self, records: Mapping[str, Tensor]) -> Detections:
        """Records of one view as columns; ids are places in the sorted image ids."""
        truth = self.found.truth(self.split)
        kept = records["score"].shape[1]
        image = truth.image_ids[records["ids"].numpy()].repeat(kept)
        category = truth.category_ids[records["category"].flatten().long().numpy()]
        return Detections(
            image, category, records["score"].flatten().double().numpy(), records["box"].flatten(0, 1).double().numpy()
        )

    def rows(self) -> list[tuple[View, dict[str, float], dict[str, Any] | None]]:
        """Numbers of groups without a box are left out.

        Raises: TaskError when images of the split were not seen, because AP over a part is another number.
        """
        truth, rows = self.found.truth(self.split), []
        for view, records in self.records().items():
            if len(records["ids"]) != len(truth.image_ids):
                raise TaskError(f"{len(records['ids'])} of {len(truth.image_ids)} images of {self.split} were scored")
            numbers = score_fast(self.detections(records), truth)
            rows.append((view, {k: v for k, v in numbers.items() if v is not None}, dict(records)))
        return rows


class Detection(Task):
    """LVIS or COCO box AP of any backbone with OWL-ViT's heads, at any grid. Evaluation; there is no recipe yet.

    Raises: TaskError for unknown data, prompts or text tower, or a side that cannot be.

    Example::

        task = build_task("detection", root="data", options={"data": "lvis_coco80"})
        model = task.model(build_backbone("flexivit_nano"))
    """

    Options = DetectionOptions

    def __init__(self, root: str | Path = ".", options: Mapping[str, Any] | None = None, seed: int = 0):
        super().__init__(root, options, seed)
        chosen = self.options
        self.side = chosen.side or (MINI_SIDE if chosen.data in MINI else SIDE)
        if self.side < 1:
            raise TaskError(f"side {self.side} is not a number of pixels")
        if not 0 <= chosen.pad <= 1:
            raise TaskError(f"pad {chosen.pad} is no grey between 0 and 1")
        self.card = TaskCard(
            "detection", "v1", metric="AP", image_size=self.side,
            splits={"train": None, "minival": None, "val": 19_809 if chosen.data == "lvis" else None},
            sources={chosen.data: SOURCE},
            citation="Gupta et al. 2019 (LVIS); Minderer et al. 2022 (OWL-ViT); Beyer et al. 2023 (FlexiViT)",
        )  # fmt: skip

    @functools.cached_property
    def found(self) -> DetectionSet:
        return DetectionSet(self.options.data, self.root)

    def missing(self) -> list[str]:
        try:
            return self.found.missing()
        except TaskError as error:
            return [str(error)]

    def fingerprint(self) -> str:
        return self.found.fingerprint()

    def dataset(self, split: str) -> DetectionData:
        return DetectionData(self.found, split, self.side, self.options.pad)

    def collate(self, samples: Sequence[tuple[int, Tensor, dict[str, Tensor]]]) -> Batch:
        ids, images, targets = zip(*samples, strict=True)
        return Batch(torch.tensor(ids), torch.stack(images), {"size": torch.stack([t["size"] for t in targets])})

    def model(self, backbone: nn.Module) -> Detector:
        torch.manual_seed(self.seed)
        chosen = self.options
        return Detector(backbone, build_text_tower(chosen.text), merge=chosen.merge, objectness=chosen.objectness)

    def prepare(self, model: nn.Module, split: str) -> Tensor:
        """Queries [K, E] of all categories, in the order of their ids; once for all grids."""
        return category_queries(model.text, self.found.truth(split).names, self.options.prompts)

    @torch.no_grad()
    def predict(self, model: nn.Module, batch: Batch, view: View, prepared: Tensor) -> dict[str, Tensor]:
        """`score`, `category` [B, 300] (its place among the sorted ids), `box` [B, 300, 4]: x, y, w, h in pixels."""
        found = model(batch.images, view.grid, prepared, normalised=True)
        scores, categories, boxes = top_pairs(found.logits, found.boxes, MAX_DETECTIONS)
        height, width = batch.targets["size"].to(boxes.device)[:, :, None].unbind(1)
        return {"score": scores, "category": categories.int(), "box": to_pixels(boxes, height, width)}

    def meter(self, split: str) -> DetectionMeter:
        return DetectionMeter(self.found, split)
