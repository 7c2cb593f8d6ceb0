"""The classification task: fine-tuning, linear probes and k-NN on the same data and preprocessing."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.classification.base import LabelledTask
from tasks.classification.recipes import PROTOCOL, published
from tasks.contract import Batch, Grid, Options, Recipe, TaskCard, TaskError, View, option, without_gradients
from tasks.data.errors import DataError, Missing, Wrong
from tasks.data.sets.labelled import labelled_set
from tasks.data.splits import Labelled

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from tasks.classification.pictures import Pictures
    from tasks.contract.meters import Records, ScoredRecords

PROTOCOLS = ("finetune", "linear", "knn", "fewshot", "head")
UNTRAINED = ("knn", "fewshot", "head")
LABEL_SPACES = ("subset", "all")
LINEAR_RATES = tuple(PROTOCOL.value("linear_rates"))
STYLES = ("big_vision", "torchvision")
CROPS = ("inception", "resmall", "resize")
DECODINGS = ("full", "scaled")


@dataclass(frozen=True)
class ClassificationOptions(Options):
    """What can be chosen."""

    data: str = option("imagenet", "train", "a known set, hf:FOLDER, or a folder (with a slash) of train/ and test/")
    image_column: str = option("", "train", "of parquet and saved sets; empty: the usual names (image, img, ...)")
    label_column: str = option("", "train", "of parquet and saved sets; empty: the usual names (label, labels, ...)")
    protocol: str = option("finetune", "train", "finetune, linear, knn, fewshot, or head (the backbone's own)")
    image_size: int = option(0, "train", "pixels per side; 0: 240, and 120 for the mini packs")
    preprocess: str = option("big_vision", "train", "big_vision or torchvision", values=("torchvision",))
    crop: str = option("", "train", "training crop: inception, resmall or resize; empty: the published recipe's")
    neighbours: int = option(PROTOCOL.value("neighbours"), "eval", "k-NN: how many vote")
    temperature: float = option(PROTOCOL.value("temperature"), "eval", "k-NN: a vote weighs exp(cosine / temperature)")
    shots: int = option(PROTOCOL.value("fewshot_shots")[0], "train", "few-shot: pictures of each class")
    label_map: str = option("", "train", "head: a file with the place of each class among the outputs, one a line")
    label_space: str = option("subset", "eval", "of sets with some of the classes (ImageNet-A, -R): subset or all")
    squeeze: bool = option(
        False, "eval", "resize both sides before the central crop, as for distilled models", data=True
    )
    ensemble: list = option([], "eval", "finetune, head: further grids, averaged as probabilities", values=([5],))
    probe: int = option(-1, "eval", "linear: which of the probes; -1: the best on minival", values=(3,))
    decode: str = option(
        "full", "train", "full; or scaled: large JPEGs at 1/2, 1/4, 1/8, faster and with other pixels", later=True,
        values=("scaled",),
    )  # fmt: skip


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
        for name, value in (("image_size", self.side), ("neighbours", chosen.neighbours), ("shots", chosen.shots)):
            if value < 1:
                raise TaskError(f"{name} must be 1 or more, not {value}")
        if chosen.temperature <= 0:
            raise TaskError(f"temperature must be above 0, not {chosen.temperature}")
        if chosen.label_space not in LABEL_SPACES:
            raise TaskError(f"no label_space {chosen.label_space!r}; there are: {', '.join(LABEL_SPACES)}")
        if chosen.decode not in DECODINGS:
            raise TaskError(f"no decode {chosen.decode!r}; there are: {', '.join(DECODINGS)}")
        self._check_ensemble()
        if not -1 <= chosen.probe < len(LINEAR_RATES):
            raise TaskError(f"probe {chosen.probe} is not one of 0 to {len(LINEAR_RATES) - 1}, or -1 for the best")
        self.recipe = _recipe(chosen.protocol, known.recipe)
        if chosen.protocol in UNTRAINED:
            self.untrained = f"protocol {chosen.protocol} trains nothing"
        self.card = TaskCard(
            "classification", f"{chosen.protocol}-{PROTOCOL.version(chosen.protocol)}", metrics=("top1", "top5"),
            image_size=self.side,
            splits=self.data.card_splits(), sources={chosen.data: self.data.card.source},
            citation="Kolesnikov et al. 2020 (BiT, transfer); Caron et al. 2021 (k-NN); Beyer et al. 2023 (FlexiViT)",
        )  # fmt: skip

    def _check_ensemble(self) -> None:
        chosen = self.options
        wrong = [g for g in chosen.ensemble if isinstance(g, bool) or not isinstance(g, int) or g < 1 or self.side % g]
        if wrong:
            raise TaskError(f"ensemble: grid {wrong[0]!r} does not divide {self.side} px")
        if chosen.ensemble and chosen.protocol not in ("finetune", "head"):
            raise TaskError(
                f"protocol {chosen.protocol} has no probabilities to average; ensemble is of finetune and head"
            )

    def labelled(self, split: str) -> Labelled:
        """As of every labelled task; the gallery of k-NN is the whole of train, because nothing is chosen on minival.

        That of few-shot is some pictures of each class, drawn by the seed.
        """
        protocol = self.options.protocol
        if protocol in ("knn", "fewshot") and split == "train" and split not in self._loaded:
            whole = self.data.whole(split)
            if protocol == "fewshot":
                from tasks.classification.scoring import few_per_class

                chosen = few_per_class(np.asarray(whole.labels), len(whole.classes), self.options.shots, self.seed)
                whole = whole.subset(chosen)
            self._loaded[split] = whole
        return super().labelled(split)

    @functools.cached_property
    def classes(self) -> int:
        # a published head needs no training pictures
        split = self.data.reported[0] if self.options.protocol == "head" else "train"
        return len(self.labelled(split).classes)

    def missing(self, splits: tuple[str, ...] = ()) -> list[DataError]:
        if self.options.protocol != "head":
            return super().missing(splits)
        lacking = self.data.problems(splits or self.data.reported[:1])
        path = Path(self.options.label_map)
        if self.options.label_map and not path.is_file():
            lacking.append(Missing("no such file of places", path=path, field="options.label_map"))
        return lacking

    def fingerprint(self, split: str = "train") -> str:
        own = super().fingerprint(
            split if self.options.protocol != "head" or split != "train" else self.data.reported[0]
        )
        places = self._label_map()
        return own if places is None else f"{own} {hashlib.sha256(places.numpy().tobytes()).hexdigest()[:16]}"

    def prepare(self, model: nn.Module, split: str) -> Any:
        return self.allowed(split) if self.options.label_space == "subset" else None

    def dataset(self, split: str) -> Pictures:
        from tasks.classification.pictures import Pictures

        protocol = self.options.protocol
        seen = split != "train" or protocol in UNTRAINED  # training must not depend on how it is evaluated
        squeeze = protocol == "fewshot" or (seen and self.options.squeeze)
        scaled = self.options.decode == "scaled"
        return Pictures(self.labelled(split), self.side, self.options.preprocess, self.crop, squeeze, scaled)

    def model(self, backbone: nn.Module) -> nn.Module:
        from tasks.classification.models import Classifier, LinearProbes, Locked, PublishedHead

        if self.options.protocol in ("knn", "fewshot"):
            return Locked(backbone, unit=self.options.protocol == "knn")
        if self.options.protocol == "head":
            return PublishedHead(backbone, self.classes, self._label_map())
        if self.options.protocol == "linear":
            return LinearProbes(backbone, self.classes, LINEAR_RATES)
        return Classifier(backbone, self.classes)

    def _label_map(self) -> Tensor | None:
        if not self.options.label_map:
            return None
        import torch

        path = Path(self.options.label_map)
        words = path.read_text(encoding="utf-8").replace(",", " ").strip("[] \n").split()
        wrong = next((n for n, word in enumerate(words, 1) if not word.isdecimal()), None)
        if wrong is not None:
            raise Wrong(f"must be a place from 0, not {words[wrong - 1]!r}", path=path, place=f"entry {wrong}")
        return torch.tensor([int(word) for word in words])

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
        if self.options.protocol in UNTRAINED:
            raise TaskError(f"{self.untrained}; its recipe has 0 steps")
        from torch.nn import functional as F

        logits, labels = model(batch.images, grid).float(), batch.targets
        if logits.ndim == 2:
            return {"loss": F.cross_entropy(logits, labels), "count": len(batch), "top1": _hits(logits, labels)}
        return {"loss": sum(F.cross_entropy(one, labels) for one in logits), "count": len(batch)}

    def indifferent(self) -> dict[str, str]:
        protocol = self.options.protocol
        owners = {"neighbours": "knn", "temperature": "knn", "probe": "linear", "shots": "fewshot", "label_map": "head"}
        small = {"decode": "its pictures are drawn small"} if self.options.data == "scenes" else {}
        return {name: f"of protocol {owner}" for name, owner in owners.items() if owner != protocol} | small

    def before_training(self, model: nn.Module, batches: Iterator[tuple[Batch, Grid]]) -> None:
        """Mean and variance of the locked features, over training pictures as they are cut and mirrored."""
        if self.options.protocol == "linear":
            model.norm.measure(model.features(batch.images, grid) for batch, grid in batches)

    def choices(self) -> list[dict[str, Any]]:
        """Which probe: they compete on minival."""
        chosen = self.options.protocol != "linear" or self.options.probe >= 0
        return [] if chosen else [{"probe": i} for i in range(len(LINEAR_RATES))]

    def parts(self, split: str) -> tuple[str, ...]:
        return ("train", split) if self.options.protocol in ("knn", "fewshot") else (split,)

    def passes(self, view: View) -> tuple[Grid, ...]:
        return (view.grid, *((g, g) for g in self.at(view).options.ensemble))

    @without_gradients
    def predict(self, model: nn.Module, batch: Batch, grid: Grid, prepared: Tensor | None) -> dict[str, Tensor]:
        """`ranked` int32 [B, 5] (k-NN and few-shot: `vector` float32 [B, D]) and `label`."""
        import torch

        out = model(batch.images, grid).float()
        if self.options.ensemble:
            several = (out, *(model(batch.images, (g, g)).float() for g in self.options.ensemble))
            out = torch.stack([one.softmax(-1) for one in several]).mean(0).log()
        label = torch.as_tensor(batch.targets)
        if self.options.protocol in ("knn", "fewshot"):
            return {"vector": out, "label": label}
        if self.options.protocol == "linear":
            out = out[max(0, self.options.probe)]
        if prepared is not None:
            out = out.masked_fill(~prepared.to(out.device), -torch.inf)
        return {"ranked": out.topk(min(5, out.shape[1]), dim=1).indices.int(), "label": label}

    def meter(self, split: str) -> ScoredRecords:
        from tasks.contract.meters import ScoredRecords

        if self.options.protocol not in ("knn", "fewshot"):
            return ScoredRecords(self._scores, split)
        return ScoredRecords(self._scores, split, functools.partial(self._voted, split), keep=("ranked", "label"))

    def _voted(self, split: str, parts: dict[str, Records]) -> Records:
        from tasks.classification.scoring import least_squares, neighbour_votes

        gallery, queries = parts["train"], parts[split]
        if self.options.protocol == "fewshot":
            ranked = least_squares(gallery["vector"], gallery["label"], queries["vector"], self.classes)
            return {"ids": queries["ids"], "label": queries["label"], "ranked": ranked.int()}
        ranked = neighbour_votes(
            gallery["vector"], gallery["label"], queries["vector"], self.classes, self.options.neighbours,
            self.options.temperature,
        )  # fmt: skip
        return {"ids": queries["ids"], "label": queries["label"], "ranked": ranked.int()}


def _hits(logits: Tensor, labels: Tensor) -> Tensor:
    labels = labels.argmax(1) if labels.ndim == 2 else labels
    return (logits.argmax(1) == labels).float().mean()


def _recipe(protocol: str, published: Recipe) -> Recipe:
    if protocol in UNTRAINED:
        return Recipe(steps=0)
    if protocol == "linear":
        # no clipping: a norm over all probes would couple them
        rates = {f"heads.{i}": rate for i, rate in enumerate(LINEAR_RATES)}
        return dataclasses.replace(published, lr=1.0, lr_groups=rates, warmup=0, clip=None, candidates=())
    return published
