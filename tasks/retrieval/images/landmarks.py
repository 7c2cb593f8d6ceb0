"""Revisited Oxford and Paris: buildings found among thousands of pictures, mAP easy, medium and hard."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from tasks.contract import Batch, Grid, Options, Recipe, Task, TaskCard, TaskError, option, without_gradients
from tasks.contract.task import sums_of_mean
from tasks.data.errors import DataError
from tasks.data.pictures import read_rgb
from tasks.data.sets.landmarks import GRADES, landmark_set
from tasks.data.splits import Sought
from tasks.protocols import protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tasks.retrieval.images.landmark_meter import LandmarkMeter


class LandmarkPictures:
    """`dataset[i] -> (image uint8 [3, S, S], i)`; queries are cut to their box, as the benchmark demands."""

    def __init__(self, split: Sought, side: int):
        self.split, self.side = split, side
        self.boxes = [answer["bbx"] for answer in split.answers] or None

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        from tasks.data.decoding import squeezed

        pictures = self.split.pictures
        image = Image.fromarray(read_rgb(pictures.read(i), pictures.where(i)))
        if self.boxes is not None:
            image = image.crop(tuple(float(v) for v in self.boxes[i]))
        return squeezed(image, self.side), i


class Landmarks(Task):
    """Queries cut out of pictures against a gallery, by the backbone alone.

    Example::

        task = build_task("landmark_retrieval", root="data", options={"data": "roxford5k"})
        model = task.model(build_backbone("flexivit_b_i21k_300ep"))
    """

    @dataclass(frozen=True)
    class Options(Options):
        data: str = option("roxford5k", "train", "roxford5k or rparis6k")
        image_size: int = option(480, "train", "pixels per side; pictures are squeezed to a square")
        pooling: str = option("pooled", "train", "pooled (the backbone's own) or mean (of patch tokens)")

    recipe = Recipe(steps=0)
    untrained = "landmark_retrieval trains nothing"

    def __init__(self, root: str | Path = ".", options: Mapping[str, Any] | None = None, seed: int = 0):
        super().__init__(root, options, seed)
        self.data = landmark_set(self.options.data, self.root)
        self.card = TaskCard(
            "landmark_retrieval", protocol("retrieval").version("landmark_retrieval"),
            metrics=("mAP_medium", "mAP_hard", "mAP_easy"),
            image_size=self.options.image_size, splits={"test": None},
            sources={self.options.data: self.data.card.source},
            citation="Radenovic et al., CVPR 2018, arXiv:1803.11285",
        )  # fmt: skip

    def reads(self, splits: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Queries and gallery are read whatever is reported."""
        return self.data.splits

    def missing(self, splits: tuple[str, ...] = ()) -> list[DataError]:
        return self.data.problems(self.reads(splits))

    def fingerprint(self, split: str) -> str:
        return " ".join(self.data.load(part).fingerprint for part in self.data.splits)

    def parts(self, split: str) -> tuple[str, ...]:
        return ("gallery", split)

    def smoke(self, split: str, count: int, limit: int) -> Sequence[int]:
        """Of the gallery what answers the chosen queries first: a query without an answer has no precision."""
        answers = self.data.truth.answers
        if split != "gallery" or limit >= count:
            return super().smoke(split, count, limit)
        asked = [answers[i] for i in super().smoke("test", len(answers), limit)]
        by_turns = itertools.zip_longest(*(own[grade].tolist() for grade in GRADES for own in asked))
        order = (int(i) for turn in by_turns for i in turn if i is not None)
        return sorted(itertools.islice(dict.fromkeys(itertools.chain(order, range(count))), limit))

    def dataset(self, split: str) -> LandmarkPictures:
        return LandmarkPictures(self.data.load(split), self.options.image_size)

    def model(self, backbone: nn.Module) -> nn.Module:
        from tasks.retrieval.embedder import Embedder

        return Embedder(backbone, self.options.pooling)

    def loss(self, model: nn.Module, batch: Batch, grid: Grid) -> dict[str, Any]:
        raise TaskError(f"{self.untrained}; its recipe has 0 steps")

    @without_gradients
    def predict(self, model: nn.Module, batch: Batch, grid: Grid, prepared: Any) -> dict[str, Tensor]:
        """`vector` float32 [B, D]."""
        return {"vector": model(batch.images, grid, batch.features)}

    def meter(self, split: str) -> LandmarkMeter:
        from tasks.retrieval.images.landmark_meter import LandmarkMeter

        return LandmarkMeter(self.data.truth.answers, split)

    def sums(self, samples: Mapping[str, Any]) -> tuple[Any, Callable[[Any], Any]]:
        """Queries are drawn; the gallery stays whole."""
        return sums_of_mean(samples["mAP_medium"].astype("float64"))
