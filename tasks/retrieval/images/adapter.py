"""The task of image-to-image retrieval: nothing is trained, each image of a split searches all the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.contract import Batch, Grid, Options, Recipe, Task, TaskCard, TaskError, View, option, without_gradients
from tasks.contract.task import sums_of_mean
from tasks.data.errors import DataError
from tasks.data.sets.labelled import labelled_set
from tasks.data.splits import Labelled
from tasks.protocols import protocol
from tasks.retrieval.images.labelled import LabelledDataset

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from tasks.retrieval.images.meter import ImageMeter

PROTOCOL = protocol("retrieval")
CUTOFFS = tuple(PROTOCOL.value("image_recall_at"))


class ImageRetrieval(Task):
    """Images of the same class, by the backbone alone; and across grids: queries at one, the gallery at another.

    Example::

        task = build_task("image_retrieval", root="data", options={"data": "cars98"})
        model = task.model(build_backbone("flexivit_nano"))
    """

    @dataclass(frozen=True)
    class Options(Options):
        data: str = option("cars98", "train", "a known set, or a folder of class folders with a slash at its end")
        image_size: int = option(120, "train", "pixels per side; pictures are squeezed to a square")
        pooling: str = option(
            "pooled", "train", "pooled (the backbone's own) or mean (of patch tokens)", values=("mean",)
        )
        index: str = option("flat", "eval", "faiss index: flat (exact), ivf or hnsw", values=("ivf", "hnsw"))
        cross_grid: bool = option(True, "eval", "also search galleries of the other grids of the sweep")

    recipe = Recipe(steps=0)
    untrained = "image_retrieval trains nothing"

    def __init__(self, root: str | Path = ".", options: Mapping[str, Any] | None = None, seed: int = 0):
        super().__init__(root, options, seed)
        self.data = labelled_set(self.options.data, self.root, bare=True)
        self.card = TaskCard(
            "image_retrieval", PROTOCOL.version("image_retrieval"), metrics=("R@1", "mAP@R"),
            image_size=self.options.image_size, splits=self.data.form.sizes(),
            sources={self.options.data: self.data.card.source},
            citation="mAP@R: Musgrave et al., ECCV 2020, arXiv:2003.08505",
        )  # fmt: skip
        self._sets: dict[str, Labelled] = {}

    def labelled(self, split: str) -> Labelled:
        """Names, labels and encoded pictures of a split, read once."""
        if split not in self._sets:
            self._sets[split] = self.data.whole(split)
        return self._sets[split]

    def reads(self, splits: tuple[str, ...] = ()) -> tuple[str, ...]:
        """The splits that are searched; () stands for the first of the set."""
        return splits or self.data.reported[:1]

    def indifferent(self) -> dict[str, str]:
        return {"index": "an approximate index finds among few pictures what an exact one does"}

    def missing(self, splits: tuple[str, ...] = ()) -> list[DataError]:
        return self.data.problems(self.reads(splits))

    def fingerprint(self, split: str = "test") -> str:
        return self.labelled(split).fingerprint

    def smoke(self, split: str, count: int, limit: int) -> Sequence[int]:
        """Pairs of a class, of classes evenly spread: a picture alone in its class has nothing to find."""
        labels = np.asarray(self.labelled(split).labels)
        order = np.argsort(labels, kind="stable")
        classes = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
        pairs = [own[:2] for own in classes if len(own) > 1]
        if limit >= count or not pairs:
            return super().smoke(split, count, limit)
        return sorted(int(i) for p in super().smoke(split, len(pairs), max(1, limit // 2)) for i in pairs[p])

    def dataset(self, split: str) -> LabelledDataset:
        return LabelledDataset(self.labelled(split), self.options.image_size)

    def model(self, backbone: nn.Module) -> nn.Module:
        from tasks.retrieval.embedder import Embedder

        return Embedder(backbone, self.options.pooling)

    def loss(self, model: nn.Module, batch: Batch, grid: Grid) -> dict[str, Any]:
        raise TaskError(f"{self.untrained}; its recipe has 0 steps")

    @without_gradients
    def predict(self, model: nn.Module, batch: Batch, grid: Grid, prepared: Any) -> dict[str, Tensor]:
        """`vector` float32 [B, D], `label` int64 [B]."""
        import torch

        vector = model(batch.images, grid, batch.features)
        return {"vector": vector, "label": torch.as_tensor(batch.targets)}

    def meter(self, split: str) -> ImageMeter:
        from tasks.retrieval.images.meter import ImageMeter

        return ImageMeter(CUTOFFS, self.options.index, self.options.cross_grid)

    def pictures(
        self, model: nn.Module, split: str, samples: Mapping[View, Mapping[str, Any]], device: torch.device | str
    ) -> list[tuple[str, Any]]:
        """Three query pictures and the five nearest to each, at each grid; green is of the same class."""
        from tasks.retrieval.panels import found_at, queries_shown, strip

        found, dataset, shown = self.labelled(split), self.dataset(split), []
        for place in queries_shown(len(dataset)):
            rows, label = found_at(samples, "top", place), found.labels[place]
            sheet = strip(rows, lambda i: dataset[i][0], lambda i, own=label: found.labels[i] == own, place)
            shown.append(("a query (black) and the five nearest pictures, green of the same class", sheet))
        return shown

    def sums(self, samples: Mapping[str, Any]) -> tuple[Any, Callable[[Any], Any]]:
        """Queries are drawn; the gallery stays whole."""
        return sums_of_mean(samples["R@1"].astype("float64"))
