"""The classification task: fine-tuning, linear probes and k-NN on the same data and preprocessing."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.classification.base import LabelledTask
from tasks.classification.recipes import PROTOCOL, published
from tasks.contract import Batch, Grid, Options, Recipe, TaskCard, TaskError, option, without_gradients
from tasks.data.sets.labelled import labelled_set
from tasks.data.splits import Labelled

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from tasks.classification.pictures import Pictures
    from tasks.contract.meters import Records, ScoredRecords

PROTOCOLS = ("finetune", "linear", "knn")
LINEAR_RATES = tuple(PROTOCOL.value("linear_rates"))
STYLES = ("big_vision", "torchvision")
CROPS = ("inception", "resmall", "resize")


@dataclass(frozen=True)
class ClassificationOptions(Options):
    """What can be chosen."""

    data: str = option("imagenet", "train", "a known set, hf:FOLDER, or a folder (with a slash) of train/ and test/")
    image_column: str = option("", "train", "of parquet and saved sets; empty: the usual names (image, img, ...)")
    label_column: str = option("", "train", "of parquet and saved sets; empty: the usual names (label, labels, ...)")
    protocol: str = option("finetune", "train", "finetune, linear or knn")
    image_size: int = option(0, "train", "pixels per side; 0: 240, and 120 for the mini packs")
    preprocess: str = option("big_vision", "train", "big_vision or torchvision")
    crop: str = option("", "train", "training crop: inception, resmall or resize; empty: the published recipe's")
    neighbours: int = option(PROTOCOL.value("neighbours"), "eval", "k-NN: how many vote")
    temperature: float = option(PROTOCOL.value("temperature"), "eval", "k-NN: a vote weighs exp(cosine / temperature)")
    probe: int = option(-1, "eval", "linear: which of the probes; -1: the best on minival")


class Classification(LabelledTask):
    """Top-1 and top-5 accuracy.

    Raises: TaskError for unknown data, protocol, preprocessing or crop.

    Example::

        task = build_task("classification", root="data", options={"data": "cars98", "protocol": "knn"})
        model = task.model(build_backbone("flexivit_nano"))
    """

    Options = ClassificationOptions

    def __init__(self, root: str | Path = ".", options: Mapping[str, Any] | None = None, seed: int = 0):
        super().__init__(root, options, seed)
        chosen = self.options
        self.data = labelled_set(chosen.data, self.root, chosen.image_column, chosen.label_column)
        known = published(self.data.card.name)
        if chosen.protocol not in PROTOCOLS:
            raise TaskError(f"no protocol {chosen.protocol!r}; there are: {', '.join(PROTOCOLS)}")
        self.crop = chosen.crop or known.crop
        if chosen.preprocess not in STYLES:
            raise TaskError(f"no preprocess {chosen.preprocess!r}; there are: {', '.join(STYLES)}")
        if self.crop not in CROPS:
            raise TaskError(f"no crop {self.crop!r}; there are: {', '.join(CROPS)}")
        self.side = chosen.image_size or known.image_size
        if self.side < 1 or chosen.neighbours < 1 or chosen.temperature <= 0:
            raise TaskError("image_size and neighbours must be 1 or more, temperature above 0")
        if not -1 <= chosen.probe < len(LINEAR_RATES):
            raise TaskError(f"probe {chosen.probe} is not one of 0 to {len(LINEAR_RATES) - 1}, or -1 for the best")
        self.recipe = _recipe(chosen.protocol, known.recipe)
        self.card = TaskCard(
            "classification", f"{chosen.protocol}-{PROTOCOL.version(chosen.protocol)}", metrics=("top1", "top5"),
            image_size=self.side,
            splits=self.data.card_splits(), sources={chosen.data: self.data.card.source},
            citation="Kolesnikov et al. 2020 (BiT, transfer); Caron et al. 2021 (k-NN); Beyer et al. 2023 (FlexiViT)",
        )  # fmt: skip

    def labelled(self, split: str) -> Labelled:
        """As of every labelled task; the gallery of k-NN is the whole of train, because nothing is chosen."""
        if self.options.protocol == "knn" and split == "train" and split not in self._loaded:
            self._loaded[split] = self.data.whole(split)
        return super().labelled(split)

    def dataset(self, split: str) -> Pictures:
        from tasks.classification.pictures import Pictures

        return Pictures(self.labelled(split), self.side, self.options.preprocess, self.crop)

    def model(self, backbone: nn.Module) -> nn.Module:
        from tasks.classification.models import Classifier, LinearProbes, Locked

        if self.options.protocol == "knn":
            return Locked(backbone)
        if self.options.protocol == "linear":
            return LinearProbes(backbone, self.classes, LINEAR_RATES)
        return Classifier(backbone, self.classes)

    def augment(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
        """Mixup after normalisation, one mix for the batch: `max(a, 1 - a)` of a picture, the rest of its neighbour."""
        if not self.recipe.mixup:
            return batch
        import torch
        from torch.nn import functional as F

        a = np.random.default_rng(generator.initial_seed()).beta(self.recipe.mixup, self.recipe.mixup)
        a = float(max(a, 1 - a))
        images = model.backbone.normalise(batch.images)
        labels = F.one_hot(torch.as_tensor(batch.targets), self.classes).float()
        mixed = [a * x + (1 - a) * x.roll(1, 0) for x in (images, labels)]
        return Batch(batch.ids, mixed[0], mixed[1], batch.features)

    def loss(self, model: nn.Module, batch: Batch, grid: Grid) -> dict[str, Any]:
        """Softmax cross-entropy; the sum over probes, which share no trained weight."""
        if self.options.protocol == "knn":
            raise TaskError("k-NN trains nothing; its recipe has 0 steps")
        from torch.nn import functional as F

        logits, labels = model(batch.images, grid).float(), batch.targets
        if logits.ndim == 2:
            return {"loss": F.cross_entropy(logits, labels), "count": len(batch), "top1": _hits(logits, labels)}
        return {"loss": sum(F.cross_entropy(one, labels) for one in logits), "count": len(batch)}

    def before_training(self, model: nn.Module, batches: Iterator[tuple[Batch, Grid]]) -> None:
        """Mean and variance of the locked features, over training pictures as they are cut and mirrored."""
        if self.options.protocol == "linear":
            model.norm.measure(model.features(batch.images, grid) for batch, grid in batches)

    def choices(self) -> list[dict[str, Any]]:
        """Which probe: they compete on minival."""
        chosen = self.options.protocol != "linear" or self.options.probe >= 0
        return [] if chosen else [{"probe": i} for i in range(len(LINEAR_RATES))]

    def parts(self, split: str) -> tuple[str, ...]:
        return ("train", split) if self.options.protocol == "knn" else (split,)

    @without_gradients
    def predict(self, model: nn.Module, batch: Batch, grid: Grid, prepared: Tensor | None) -> dict[str, Tensor]:
        """`ranked` int32 [B, 5] (k-NN: `vector` float32 [B, D]) and `label`."""
        import torch

        out = model(batch.images, grid).float()
        label = torch.as_tensor(batch.targets)
        if self.options.protocol == "knn":
            return {"vector": out, "label": label}
        if self.options.protocol == "linear":
            out = out[max(0, self.options.probe)]
        if prepared is not None:
            out = out.masked_fill(~prepared.to(out.device), -torch.inf)
        return {"ranked": out.topk(min(5, out.shape[1]), dim=1).indices.int(), "label": label}

    def meter(self, split: str) -> ScoredRecords:
        from tasks.contract.meters import ScoredRecords

        if self.options.protocol != "knn":
            return ScoredRecords(self._scores, split)
        return ScoredRecords(self._scores, split, functools.partial(self._voted, split), keep=("ranked", "label"))

    def _voted(self, split: str, parts: dict[str, Records]) -> Records:
        from tasks.classification.scoring import neighbour_votes

        gallery, queries = parts["train"], parts[split]
        ranked = neighbour_votes(
            gallery["vector"], gallery["label"], queries["vector"], self.classes, self.options.neighbours,
            self.options.temperature,
        )  # fmt: skip
        return {"ids": queries["ids"], "label": queries["label"], "ranked": ranked.int()}


def _hits(logits: Tensor, labels: Tensor) -> Tensor:
    labels = labels.argmax(1) if labels.ndim == 2 else labels
    return (logits.argmax(1) == labels).float().mean()


def _recipe(protocol: str, published: Recipe) -> Recipe:
    if protocol == "knn":
        return Recipe(steps=0)
    if protocol == "linear":
        # no clipping: a norm over all probes would couple them
        rates = {f"heads.{i}": rate for i, rate in enumerate(LINEAR_RATES)}
        return dataclasses.replace(published, lr=1.0, lr_groups=rates, warmup=0, clip=None, candidates=())
    return published
