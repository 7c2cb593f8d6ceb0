"""The task of image-text retrieval: locked-image tuning, evaluated at any grid."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backbones.weights.hub import in_hub_cache
from tasks.contract import (
    Batch,
    Grid,
    Metric,
    Options,
    Task,
    TaskCard,
    TaskError,
    TrainingWork,
    View,
    option,
    without_gradients,
)
from tasks.data.errors import DataError, Missing
from tasks.data.sets.captioned import captioned_set
from tasks.data.splits import Captioned
from tasks.protocols import protocol
from tasks.retrieval.captions import CaptionDataset
from tasks.text.sizes import BERT, text_macs, usual_preset
from tasks.text.weights import lacking_weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from tasks.retrieval.meter import RetrievalMeter

PROTOCOL = protocol("retrieval")
METRICS = tuple(Metric(f"{way}_R@{k}") for way in ("t2i", "i2t") for k in PROTOCOL.value("recall_at"))
TEXT_CHUNK = 256  # captions a forward pass


class Retrieval(Task):
    """Captions of images and images of captions.

    Example::

        task = build_task("retrieval", root="data", options={"data": "flickr8k"})
        model = task.model(build_backbone("flexivit_nano"))
    """

    @dataclass(frozen=True)
    class Options(Options):
        data: str = option("flickr8k", "train", "a known set or the path of a Karpathy .json")
        preset: str = option("", "train", "ours, siglip_lit_coco, nano; empty: ours for coco and flickr30k, else nano")
        image_size: int = option(0, "train", "pixels per side, squeezed to a square; 0: the preset's")
        captions_per_image: int = option(
            PROTOCOL.value("captions_per_image"), "train", "the first so many count; 0: all"
        )
        text: str = option(
            "",
            "train",
            "text tower: tiny, nano, small, bert-base, a model of open_clip; empty: the preset's",
            values=("nano", "tiny"),
        )
        text_pretrained: str = option("", "train", "open_clip's tag of text weights; empty: from scratch")
        embed_dim: int = option(0, "train", "width of the common space (from scratch); 0: the preset's")
        loss: str = option("sigmoid", "train", "sigmoid or contrastive", values=("contrastive",))
        locked: bool = option(True, "train", "the image tower is not trained")

    gathers = True  # open_clip's losses, with gradients through the exchange

    def __init__(self, root: str | Path = ".", options: Mapping[str, Any] | None = None, seed: int = 0):
        super().__init__(root, options, seed)
        chosen = self.options
        self.data = captioned_set(chosen.data, self.root)
        if min(chosen.image_size, chosen.captions_per_image, chosen.embed_dim) < 0:
            raise TaskError("image_size, embed_dim and captions_per_image must be 0 or more")
        preset = chosen.preset or usual_preset(chosen.data)
        if preset not in PROTOCOL.recipes:
            raise TaskError(f"no preset {preset!r}; there are: {', '.join(PROTOCOL.recipes)}")
        published = PROTOCOL.recipe(preset)
        self.settings, self.recipe = published.settings, published.made()
        usual = {name: getattr(chosen, name) or self.settings[name] for name in ("image_size", "text", "embed_dim")}
        self.options = dataclasses.replace(chosen, preset=preset, **usual)
        self.card = TaskCard(
            "retrieval", PROTOCOL.version("retrieval"), metrics=METRICS,
            image_size=self.options.image_size, splits=self.data.form.sizes(),
            sources={self.options.data: self.data.card.source},
            citation="LiT: Zhai et al., CVPR 2022, arXiv:2111.07991", units="pictures with all their captions",
        )  # fmt: skip
        self._sets: dict[str, Captioned] = {}

    def captions(self, split: str) -> Captioned:
        """Names, captions and encoded pictures of a split, read once."""
        if split not in self._sets:
            self._sets[split] = self.data.load(split, self.options.captions_per_image)
        return self._sets[split]

    def tokenize(self, captions: list[str]) -> Tensor:
        """int64 [B, context]."""
        if not hasattr(self, "_tokenizer"):
            from tasks.retrieval.lit import tokenizer

            self._tokenizer = tokenizer(self.options.text)
        return self._tokenizer(captions)

    def trimmed(self, tokens: Tensor) -> Tensor:
        """int64 [B, context] to [B, L], its longest text, where the text tower gives the same for it."""
        from tasks.retrieval.lit import trimmed

        return trimmed(self.options.text, tokens)

    def collate(self, samples: Sequence[tuple[int, Any, Any]]) -> Batch:
        """As any task's; captions are cut to the longest of the batch, while they lie on the CPU."""
        batch = super().collate(samples)
        if batch.targets.ndim == 2 and not self.one_width:
            batch.targets = self.trimmed(batch.targets)
        return batch

    def reads(self, splits: tuple[str, ...] = ()) -> tuple[str, ...]:
        """The splits that a run reads which reports on `splits`; () stands for all of the set."""
        if not splits:
            return self.data.splits
        return ("train", *splits) if self.recipe.steps else splits

    def missing(self, splits: tuple[str, ...] = ()) -> list[DataError]:
        try:
            return [*self.data.problems(self.reads(splits)), *self._missing_weights()]
        except DataError as error:
            return [error]

    def _missing_weights(self) -> list[DataError]:
        """Published weights of the text tower, BERT's or those of open_clip, that are not in the caches."""
        name, tag = self.options.text, self.options.text_pretrained
        if not self.recipe.steps:
            return []
        if tag:
            return [] if Path(tag).is_file() else lacking_weights(name, tag, "options.text_pretrained")
        bert = PROTOCOL.value("bert")
        if name != BERT or in_hub_cache(bert, ("model.safetensors", "pytorch_model.bin")):
            return []
        advice = f"on a machine with a network: hf download {bert}; it lands in HF_HOME"
        return [Missing("no weights of the text tower bert-base", place="options.text", advice=advice)]

    def fingerprint(self, split: str = "train") -> str:
        return self.captions(split).fingerprint

    def dataset(self, split: str) -> CaptionDataset:
        tokenize = self.tokenize if split == "train" else None
        size, flip, randaug = self.options.image_size, self.settings["flip"], self.settings["randaug"]
        return CaptionDataset(self.captions(split), size, tokenize, flip, tuple(randaug) if randaug else None)

    def model(self, backbone: nn.Module) -> nn.Module:
        from tasks.retrieval.lit import LiT

        o = self.options
        head, bias = self.settings["image_head"], self.settings["bias"]
        return LiT(backbone, o.text, o.embed_dim, o.loss, o.locked, o.text_pretrained, head, bias)

    def training_work(self) -> TrainingWork:
        text = text_macs(self.options.text)
        if not self.options.locked:
            return dataclasses.replace(super().training_work(), text=text)
        if self._augmented:
            return TrainingWork(passes=1, text=text)
        return TrainingWork(passes=0, kept=self.card.splits.get("train") or 0, text=text)

    @property
    def _augmented(self) -> bool:
        """Pictures differ from epoch to epoch."""
        return bool(self.settings["flip"] or self.settings["randaug"])

    def locked_encoder(self, model: nn.Module) -> Callable[[Tensor, Grid], Tensor] | None:
        if not model.locked or self._augmented:
            return None
        return lambda images, grid: model.backbone(images, grid).pooled

    def loss(self, model: nn.Module, batch: Batch, grid: Grid) -> dict[str, Any]:
        image = model.encode_image(batch.images, grid, batch.features)
        text = model.encode_text(batch.targets)
        return {"loss": model.contrast(image, text), "count": len(batch), "scale": model.logit_scale.detach().exp()}

    @without_gradients
    def prepare(self, model: nn.Module, split: str) -> dict[str, Tensor]:
        """Embeddings of all captions, once per sweep: `text` [M, D]; captions of image i: `first[i]`, `count[i]`."""
        import torch

        captions = self.captions(split).captions
        device = model.logit_scale.device
        flat = [c for own in captions for c in own]
        text = [
            model.encode_text(self.trimmed(self.tokenize(flat[i : i + TEXT_CHUNK])).to(device))
            for i in range(0, len(flat), TEXT_CHUNK)
        ]
        count = torch.tensor([len(own) for own in captions], device=device)
        return {"text": torch.cat(text), "count": count, "first": count.cumsum(0) - count}

    @without_gradients
    def predict(self, model: nn.Module, batch: Batch, grid: Grid, prepared: dict[str, Tensor]) -> dict[str, Tensor]:
        """`image` [B, D], `text` [B, C, D] (its captions, zeros after the last), `captions` [B] (how many)."""
        import torch

        image = model.encode_image(batch.images, grid, batch.features)
        ids = batch.ids.to(image.device)
        first, count = prepared["first"][ids], prepared["count"][ids]
        slots = torch.arange(int(prepared["count"].max()), device=image.device)
        at = (first[:, None] + slots).clamp_max(len(prepared["text"]) - 1)
        text = prepared["text"][at] * (slots < count[:, None])[..., None]
        return {"image": image, "text": text, "captions": count}

    def meter(self, split: str) -> RetrievalMeter:
        from tasks.retrieval.meter import RetrievalMeter

        return RetrievalMeter()

    def pictures(
        self, model: nn.Module, split: str, samples: Mapping[View, Mapping[str, Any]], device: torch.device | str
    ) -> list[tuple[str, Any]]:
        """Three captions and the five images nearest to each, at each grid."""
        from tasks.retrieval.panels import found_at, queries_shown, strip

        dataset, shown = self.dataset(split), []
        for place in queries_shown(len(dataset)):
            rows = found_at(samples, "t2i_top", place)
            sheet = strip(rows, dataset.image, lambda i, own=place: i == own)
            words = self.captions(split).captions[place][0]
            shown.append((f"“{words}”: the five nearest images, the right one green", sheet))
        return shown

    def sums(self, samples: Mapping[str, Any]) -> tuple[Any, Callable[[Any], Any]]:
        """Images are drawn with all their captions; the gallery stays whole."""
        ranks = samples["t2i_rank"]
        terms = np.stack([(ranks == 1).sum(1), (ranks > 0).sum(1)], 1).astype(np.float64)
        return terms, lambda sums: sums[:, 0] / sums[:, 1]
