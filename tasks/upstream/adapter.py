"""The upstream task: a backbone trained on labels or on a teacher's answers, at the grids of the cell's schedule."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backbones import backbone_spec
from tasks.classification.base import LabelledTask
from tasks.classification.recipes import published
from tasks.contract import Batch, Grid, Metric, Options, TaskCard, TaskError, option, without_gradients
from tasks.contract.task import sums_of_mean
from tasks.data.errors import DataError, Missing, Wrong
from tasks.data.readers.class_lists import reordered
from tasks.data.sets.labelled import labelled_set
from tasks.data.splits import Labelled
from tasks.upstream.presets import PRESETS, PROTOCOL, preset

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from tasks.contract.meters import Records, ScoredRecords
    from tasks.upstream.pictures import UpstreamPictures

METRICS = ("top1", "agreement")
INITS = ("teacher", "random")


@dataclass(frozen=True)
class UpstreamOptions(Options):
    """What can be chosen; the rest are the preset's constants."""

    preset: str = option(
        "i1k_deit3_distill",
        "train",
        "i21k_sup, i1k_deit3_distill, i21k_distill, nano, nano_distill",
        values=("nano", "i21k_sup"),
    )
    data: str = option("", "train", "a set of labelled pictures; empty: the preset's")
    epochs: int = option(0, "train", "0: the preset's own 90; sets the steps, unless the recipe says them")
    teacher: str = option("", "train", "a backbone with a classifier; empty: the preset's")
    init: str = option(
        "teacher", "train", "where a student with a teacher starts: teacher, or random weights", values=("random",)
    )
    class_list: str = option("", "train", "a file of class folders, one a line, in the order of the labels")
    head_bias: float | None = option(
        None, "train", "of a new classifier; none: the preset's -10 = -log 21843", values=(-1.0,)
    )
    minival: float | None = option(
        None, "train", "part of the training pictures held out; none: the set's own", values=(0.3,)
    )
    smallest_crop: float | None = option(
        None, "train", "least area of a crop, of batched presets; none: the preset's", values=(0.5,)
    )
    jitter: float | None = option(None, "train", "of colours, of batched presets; none: the preset's", values=(0.1,))
    image_size: int = option(0, "train", "pixels per side; 0: 240, and 120 for the mini packs")
    metric: str = option(
        "top1", "train", "reported first, and chosen by: top1, or agreement with the teacher", values=("agreement",)
    )


class Upstream(LabelledTask):
    """Trains a backbone and its classifier; top-1 at each grid, with a teacher also agreement with it and KL to it.

    Backbones named `*_scratch` start at random weights; with a teacher any of its architecture starts from it.

    Raises: TaskError for an unknown preset, set or metric; ValueError for an unknown teacher.

    Example::

        task = build_task("upstream", root="data", options={"preset": "i21k_sup", "data": "tinyimagenet100"})
        model = task.model(build_backbone("flexivit_nano_scratch"))
    """

    Options = UpstreamOptions

    def __init__(self, root: str | Path = ".", options: Mapping[str, Any] | None = None, seed: int = 0):
        super().__init__(root, options, seed)
        self.preset = preset(self.options.preset)
        name = self.options.data or self.preset.data
        self.data = labelled_set(name, self.root)
        if self.options.teacher and self.preset.loss != "kl":
            others = ", ".join(name for name, other in PRESETS.items() if other.loss == "kl")
            raise TaskError(f"{self.options.preset} has no teacher; presets with one: {others}")
        self.teacher_name = self.options.teacher or self.preset.teacher
        if self.teacher_name and ":" not in self.teacher_name:  # timm and modules take seconds to import
            backbone_spec(self.teacher_name)
        chosen = self.options = dataclasses.replace(self.options, data=name, teacher=self.teacher_name)
        if chosen.init not in INITS:
            raise TaskError(f"no init {chosen.init!r}; there are: {', '.join(INITS)}")
        known = METRICS if self.teacher_name else METRICS[:1]
        if chosen.metric not in known:
            raise TaskError(f"no metric {chosen.metric!r} of {chosen.preset}; there are: {', '.join(known)}")
        if chosen.epochs < 0 or chosen.image_size < 0:
            raise TaskError("epochs and image_size must be 0 or more")
        if chosen.minival is not None and not 0 <= chosen.minival < 1:
            raise TaskError(f"minival must be at least 0 and below 1, not {chosen.minival}")
        batched = {"smallest_crop": chosen.smallest_crop, "jitter": chosen.jitter}
        for field, value in batched.items():
            if value is not None and not self.preset.batched:
                raise TaskError(f"{chosen.preset} augments one picture at a time as its authors did: no {field}")
            if value is not None and not 0 <= value <= 1:
                raise TaskError(f"{field} must be between 0 and 1, not {value}")
        least, most = self.preset.area
        self.area = (least if chosen.smallest_crop is None else chosen.smallest_crop, most)
        self.jitter = self.preset.jitter if chosen.jitter is None else chosen.jitter
        if chosen.minival is not None:
            held = {"held_out": chosen.minival, "held_out_most": None}
            self.data = dataclasses.replace(self.data, form=self.data.form.model_copy(update=held))
        self.side = chosen.image_size or published(self.data.card.name).image_size
        self.recipe = self.preset.recipe(chosen.epochs)
        self.card = TaskCard(
            "upstream", f"{chosen.preset}-{PROTOCOL.version(chosen.preset)}",
            metrics=self._metrics(chosen.metric), image_size=self.side, splits=self.data.card_splits(),
            sources={name: self.data.card.source},
            citation="Beyer et al. 2023 (FlexiViT), big_vision configs/proj/flexivit; Beyer et al. 2022 (a consistent "
            "and patient teacher); Touvron et al. 2022 (DeiT III)",
        )  # fmt: skip

    def missing(self, splits: tuple[str, ...] = ()) -> list[DataError]:
        lacking = super().missing(splits)
        if not self.recipe.steps:
            advice = "task classification with options.protocol: head evaluates a classifier as it is"
            lacking.append(
                Wrong("0 would report the weights that the student starts from", field="recipe.steps", advice=advice)
            )
        if self.options.class_list and not Path(self.options.class_list).is_file():
            lacking.append(Missing("no such list of classes", path=self.options.class_list))
        return lacking

    def labelled(self, split: str) -> Labelled:
        """As of every labelled task, with labels in the order of `class_list` where one is given."""
        if split not in self._loaded and self.options.class_list:
            found = super().labelled(split)
            self._loaded[split] = reordered(found, Path(self.options.class_list))
        return super().labelled(split)

    def _metrics(self, first: str) -> tuple[Metric, ...]:
        told = {"top1": Metric("top1"), "top5": Metric("top5")}
        if self.teacher_name:
            told |= {"agreement": Metric("agreement"), "kl": Metric("kl", "nats", higher_is_better=False, digits=3)}
        return (told.pop(first), *told.values())

    @functools.cached_property
    def teacher(self) -> nn.Module | None:
        """The frozen teacher at its native grid, opened once."""
        if not self.teacher_name:
            return None
        from backbones import build_backbone

        found = build_backbone(self.teacher_name).fixed_at_native_grid()
        if found.head is None:
            raise TaskError(f"teacher {self.teacher_name!r} has no classifier; choose one with a head, as vit_nano_g15")
        return found.eval().requires_grad_(False)

    @property
    def teacher_side(self) -> int:
        return self.teacher.image_size[0] if self.teacher_name else 0

    def fingerprint(self, split: str = "train") -> str:
        data = super().fingerprint(split)
        return data if self.teacher is None else f"{data} {self.teacher.weights_hash()}"

    def dataset(self, split: str) -> UpstreamPictures:
        from tasks.upstream.pictures import StoredPictures, UpstreamPictures

        chosen = self.preset
        kind = StoredPictures if chosen.batched else UpstreamPictures
        return kind(self.labelled(split), self.side, self.teacher_side, chosen.squeeze, chosen.randaug)

    def collate(self, samples: Sequence[tuple[int, Any, Any]]) -> Batch:
        import torch

        if not isinstance(samples[0][2], Mapping):
            batch = super().collate(samples)
            return Batch(batch.ids, batch.images, {"label": batch.targets})
        pairs = super().collate([(i, image, target["teacher"]) for i, image, target in samples])
        labels = torch.stack([torch.as_tensor(target["label"]) for _, _, target in samples])
        return Batch(pairs.ids, pairs.images, {"label": labels, "teacher": pairs.targets})

    def model(self, backbone: nn.Module) -> nn.Module:
        from backbones import FlexiBackbone
        from tasks.upstream.models import UpstreamModel, initialise_from_teacher, supervised

        teacher = self.teacher
        if teacher is None:
            bias = self.options.head_bias
            return supervised(backbone, self.classes, self.preset.head_bias if bias is None else bias)
        outputs = teacher.head.out_features
        if self.options.metric == "top1" and outputs != self.classes:
            raise TaskError(
                f"teacher {self.teacher_name!r} tells {outputs} classes and {self.data.name} has {self.classes}: "
                "top-1 is undefined; --set options.metric=agreement reports agreement with the teacher"
            )
        if getattr(backbone, "pretrained", False):
            raise TaskError(
                "the student comes with trained weights, which its training would overwrite; name an architecture from "
                "scratch, such as flexivit_b_scratch, or give it options: {pretrained: false}"
            )
        model = supervised(backbone, outputs, 0.0)
        if self.options.init == "teacher":
            if not isinstance(backbone, FlexiBackbone):
                kind = type(backbone).__name__
                raise TaskError(f"a teacher's weights do not fit {kind}; --set options.init=random starts without them")
            initialise_from_teacher(backbone, teacher)
        # a copy: the runner may keep the frozen one in fewer bits, and other students start from this one
        return UpstreamModel(model.backbone, copy.deepcopy(teacher), model.classifier)

    def augment(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
        """Mixup after normalisation, one share for the batch: of pictures, and of labels or the teacher's pictures.

        Batched presets cut, mirror and recolour the pictures before, for student and teacher alike.
        """
        from torch.nn import functional as F

        from tasks.upstream.losses import mix, mixup_share

        share = mixup_share(np.random.default_rng(generator.initial_seed()), self.recipe.mixup)
        if self.preset.batched:
            batch = self._views(batch, generator)
        images = self._normalised(model.backbone, batch.images)
        if self.teacher_name:
            own, other = mix(share, images, self._normalised(model.teacher, batch.targets["teacher"]))
            return Batch(batch.ids, own, {**batch.targets, "teacher": other})
        own, labels = mix(share, images, F.one_hot(batch.targets["label"], self.classes).float())
        return Batch(batch.ids, own, {"label": labels})

    def _views(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Random views float [B, 3, S, S] in 0..255 of the stored pictures, the teacher's of the same crops."""
        import torch

        from tasks.upstream.augmentation import crop_and_resize, draw_boxes, draw_factors, draw_mirrored, jitter_colours

        if not isinstance(batch.images, torch.Tensor):
            name, chosen = self.data.name, self.options.preset
            raise TaskError(f"{name} has pictures of several sizes; preset {chosen} needs one size")
        count, (height, width), device = len(batch), batch.images.shape[2:], batch.images.device

        def there(drawn: Tensor) -> Tensor:
            return drawn.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else drawn

        boxes = there(draw_boxes(count, height, width, self.area, generator))
        mirrored = there(draw_mirrored(count, generator))
        factors = there(draw_factors(count, self.jitter, generator)) if self.jitter else None

        def view(side: int) -> Tensor:
            found = crop_and_resize(batch.images, boxes, mirrored, (side, side))
            return found if factors is None else jitter_colours(found, factors)

        own, targets = view(self.side), dict(batch.targets)
        if self.teacher_name:
            targets["teacher"] = own if self.teacher_side == self.side else view(self.teacher_side)
        return Batch(batch.ids, own, targets)

    def _normalised(self, encoder: nn.Module, images: Tensor) -> Tensor:
        if not images.is_floating_point():
            return encoder.normalise(images)
        own = getattr(encoder, "module", encoder)  # a frozen teacher
        return (images - own._mean) / own._std  # in 0..255, which a backbone would take for normalised

    def loss(self, model: nn.Module, batch: Batch, grid: Grid) -> dict[str, Any]:
        """Cross-entropy (sigmoid: summed over the classes), or KL to the teacher's answers; means over the pictures."""
        from torch.nn import functional as F

        from tasks.upstream.losses import kl_divergence, sigmoid_cross_entropy

        logits = model(batch.images, grid).float()
        if self.teacher_name:
            found = kl_divergence(model.answers(batch.targets["teacher"]).float(), logits)
        else:
            labels = batch.targets["label"]
            labels = F.one_hot(labels, self.classes).float() if labels.ndim == 1 else labels
            if self.preset.loss == "softmax":
                found = F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.preset.smoothing)
            else:
                found = sigmoid_cross_entropy(logits, labels)
        return {"loss": found.mean(), "count": len(batch)}

    def indifferent(self) -> dict[str, str]:
        return {} if self.teacher_name else {"init": f"{self.options.preset} has no teacher to start from"}

    def prepare(self, model: nn.Module, split: str) -> dict[str, Any]:
        """What may be predicted, and a place for the teacher's answers, which all views share."""
        from tasks.upstream.answers import Answers

        return {"allowed": self.allowed(split), "answers": Answers()}

    @without_gradients
    def predict(self, model: nn.Module, batch: Batch, grid: Grid, prepared: dict[str, Any]) -> dict[str, Tensor]:
        """`ranked` int32 [B, 5] and `label`; with a teacher `answer` int32 [B] and `kl` float32 [B]."""
        from tasks.upstream.losses import kl_divergence

        logits = model(batch.images, grid).float()
        allowed = prepared["allowed"]

        def ranked(found: Tensor) -> Tensor:
            found = found if allowed is None else found.masked_fill(~allowed.to(found.device), -float("inf"))
            return found.topk(min(5, found.shape[1]), dim=1).indices.int()

        records = {"label": batch.targets["label"], "ranked": ranked(logits)}
        if self.teacher_name:
            answers = prepared["answers"](batch.ids.tolist(), batch.targets["teacher"], model.answers)
            records |= {"answer": ranked(answers)[:, 0], "kl": kl_divergence(answers, logits)}
        return records

    def meter(self, split: str) -> ScoredRecords:
        from tasks.contract.meters import ScoredRecords

        return ScoredRecords(self._scores, split)

    def _scores(self, records: Records) -> dict[str, float]:
        if not self.teacher_name:
            return super()._scores(records)
        alike = {
            "agreement": float((records["ranked"][:, 0] == records["answer"]).double().mean()),
            "kl": float(records["kl"].double().mean()),
        }
        return alike if self.options.metric == "agreement" else super()._scores(records) | alike

    def sums(self, samples: Mapping[str, Any]) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        if self.options.metric == "top1":
            return super().sums(samples)
        return sums_of_mean((samples["ranked"][:, 0] == samples["answer"]).astype(np.float64))
