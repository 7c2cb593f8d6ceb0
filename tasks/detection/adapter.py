"""Open-vocabulary detection as a task: every category is a query on every image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contract import (
    Batch,
    Grid,
    Metric,
    Options,
    Task,
    TaskCard,
    TaskError,
    View,
    option,
    without_gradients,
)  # fmt: skip
from tasks.data.boxes.protocols import Protocol
from tasks.data.errors import DataError, Missing
from tasks.data.sets.boxed import boxed_set
from tasks.data.splits import Boxed
from tasks.detection.labels.annotations import Truth, truth_of
from tasks.detection.labels.evaluation_set import DetectionData
from tasks.detection.labels.shares import SHARES, check_mosaics
from tasks.protocols import protocol
from tasks.text.handed import run_asked, start_of
from tasks.text.prompts import check_set
from tasks.text.sizes import SMALL
from tasks.text.weights import lacking_weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from tasks.detection.labels.training_set import TrainingData
    from tasks.detection.model.detector import Detector
    from tasks.detection.scoring.meter import DetectionMeter
    from tasks.text.handed import FromFile, Handed

PROTOCOL = protocol("detection")
SIDE, GREY = PROTOCOL.value("side"), PROTOCOL.value("grey")
SIDES = {"lvis_coco80": 240, "lvis_real": 240, "scenes": 120}  # pixels of the padded square; 720 for others
NAMES = {
    Protocol.lvis: ("AP", "APr", "APc", "APf", "AP50", "AP75", "AR"),
    Protocol.coco: ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR"),
}  # fmt: skip


@dataclass(frozen=True)
class DetectionOptions(Options):
    """What can be chosen; `grid = side / patch`."""

    data: str = option(
        "lvis", "train", "lvis, lvis_coco80, lvis_real, coco2017, scenes, or a folder of train.json, val.json"
    )
    side: int = option(0, "train", "pixels of the padded square; 0: 720, 240 for the mini packs, 120 for scenes")
    text: str = option(
        "ViT-B-16-quickgelu",
        "train",
        "text tower of queries: an open_clip model, tiny, nano, small, small-512",
        values=("nano", "tiny"),
    )
    text_weights: str = option(
        "",
        "train",
        "open_clip's tag, a file with a tower under text., run:FOLDER of a retrieval run, or scratch",
    )
    text_drop_path: float = option(0.0, "train", "stochastic depth of the text tower; 0.1 in OWL-ViT with CLIP")
    merge: str = option("mul-ln", "train", "mul-ln, drop, none", values=("drop", "none"))
    size_bias: str = option(
        "patch", "train", "boxes start as large as a patch, or fixed at 1/16 of the image", values=("fixed",)
    )
    objectness: bool = option(False, "train", "with OWLv2's objectness head, which training leaves alone")
    zero_shot: bool = option(True, "train", "keep rare categories and their aliases out of training")
    federated: bool = option(True, "train", "few known absent categories an image, where the data lists all of them")
    train_prompts: str = option(
        "train", "train", "templates a text is drawn from: train (81), clip, best, plain", values=("plain", "clip")
    )
    mosaics: list = option(
        list(SHARES), "train", "shares of 1x1, 2x2 and 3x3 mosaics", values=([1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    )
    mask_quirk: bool = option(False, "train", "official padding queries, which act as negatives in training")
    prompts: str = option("best", "eval", "best (7), clip (80), train (81), plain (1)", values=("plain", "clip"))
    pad: float = option(GREY, "eval", "grey of the padding; published evaluations used 0, training 0.5", data=True)


class Detection(Task):
    """LVIS or COCO box AP of any backbone with OWL-ViT's heads, trained and evaluated at any grid.

    A set in COCO's form is scored by COCO's rules, of any other by LVIS'; the card's protocol says which.

    The recipe is OWL-ViT's for LiT towers (Minderer et al. 2022, table A3); CLIP towers had lr 5e-5 with text factor
    0.04, drop path 0.2 and text drop path 0.1.

    Raises: TaskError for unknown data, prompts or text tower, or an invalid side.

    Example::

        task = build_task("detection", root="data", options={"data": "lvis_coco80"})
        model = task.model(build_backbone("flexivit_nano"))
    """

    Options = DetectionOptions
    recipe = PROTOCOL.recipe("lit").made()

    def __init__(self, root: str | Path = ".", options: Mapping[str, Any] | None = None, seed: int = 0):
        super().__init__(root, options, seed)
        chosen = self.options
        self.side = chosen.side or SIDES.get(chosen.data, SIDE)
        if self.side < 1:
            raise TaskError(f"side {self.side} is not a number of pixels")
        if not 0 <= chosen.pad <= 1:
            raise TaskError(f"pad {chosen.pad} is no grey between 0 and 1")
        check_mosaics(chosen.mosaics, self.side)
        check_set(chosen.train_prompts), check_set(chosen.prompts)
        run_asked(chosen.text_weights)
        if not 0 <= chosen.text_drop_path < 1:
            raise TaskError(f"text_drop_path {chosen.text_drop_path} must be in [0, 1)")
        self.data = boxed_set(chosen.data, self.root)
        self.rules = self.data.rules
        lvis = PROTOCOL.version("detection")
        self._loaded: dict[str, Boxed] = {}
        self._truths: dict[str, Truth] = {}
        self.card = TaskCard(
            "detection", lvis if self.rules == Protocol.lvis else f"coco-{PROTOCOL.version('coco')}",
            metrics=tuple(Metric(name, chance=0.0) for name in NAMES[self.rules]), image_size=self.side,
            splits=self.data.card_splits(), sources={chosen.data: self.data.card.source},
            citation="Gupta et al. 2019 (LVIS); Minderer et al. 2022 (OWL-ViT); Beyer et al. 2023 (FlexiViT)",
        )  # fmt: skip

    def boxed(self, split: str) -> Boxed:
        """Names, encoded pictures and labels of a split, read once."""
        if split not in self._loaded:
            self._loaded[split] = self.data.load(split)
        return self._loaded[split]

    def truth(self, split: str) -> Truth:
        """Labels of a split by the rules of the set."""
        if split not in self._truths:
            self._truths[split] = truth_of(self.boxed(split).labels, self.rules)
        return self._truths[split]

    def reads(self, splits: tuple[str, ...] = ()) -> tuple[str, ...]:
        """The splits that a run reads which reports on `splits`; () stands for all that are usual."""
        usual = tuple(s for s in self.data.usual if s != "minival")
        return tuple(s for s in ("train", *splits) if s in self.data.splits) if splits else usual

    def indifferent(self) -> dict[str, str]:
        chosen, found = self.options, {}
        if not self.data.form.negatives:
            found["federated"] = f"{chosen.data} has no list of absent categories to choose from"
        if chosen.data == "scenes":
            found["pad"] = "the pictures are square"
        if chosen.text == "tiny":
            found["text_drop_path"] = "the only layer of the tower is never dropped"
        return found

    def missing(self, splits: tuple[str, ...] = ()) -> list[DataError]:
        return [*self.data.problems(self.reads(splits)), *self._missing_text()]

    def _missing_text(self) -> list[DataError]:
        """A published tower at random weights asks nothing: trained at the published rate it stays random."""
        name, weights = self.options.text, self.options.text_weights
        if not weights and name not in SMALL:
            advice = "a tag of open_clip (openai), a file with a tower under text., run:FOLDER, or scratch"
            reason = f"must name the weights of text tower {name!r}"
            return [Missing(reason, field="options.text_weights", advice=advice)]
        if weights in ("", "scratch") or run_asked(weights):
            return []
        return lacking_weights(name, weights, "options.text_weights")

    def start(self, backbone: str) -> Handed | FromFile | None:
        """The text tower that `text_weights` names; of a retrieval run, the one that was tuned to this backbone."""
        return start_of(self.options.text_weights, self.options.text, backbone, self.seed)

    def fingerprint(self, split: str) -> str:
        return self.boxed(split).fingerprint

    def dataset(self, split: str) -> DetectionData | TrainingData:
        chosen = self.options
        if split != "train":
            return DetectionData(self.boxed(split), self.side, chosen.pad)
        from tasks.detection.labels.training_set import TrainingData

        return TrainingData(
            self.boxed(split), self.side, zero_shot=chosen.zero_shot,
            negatives=self.data.negatives() if chosen.federated else {}, prompts=chosen.train_prompts,
            mosaics=chosen.mosaics, mask_quirk=chosen.mask_quirk,
        )  # fmt: skip

    def collate(self, samples: Sequence[tuple[int, Tensor, dict[str, Tensor]]]) -> Batch:
        """Training targets as in `collate_targets`; those of evaluation are `size` int64 [B, 2]."""
        import torch

        from tasks.detection.labels.training_set import collate_targets

        ids, images, targets = zip(*samples, strict=True)
        train = "tokens" in targets[0]
        gathered = (
            collate_targets(targets, self.one_width) if train else {"size": torch.stack([t["size"] for t in targets])}
        )
        return Batch(torch.tensor(ids), torch.stack(images), gathered)

    def model(self, backbone: nn.Module) -> Detector:
        from tasks.detection.model.detector import Detector, without_rescale
        from tasks.text.towers import build_text_tower

        chosen = self.options
        text = build_text_tower(chosen.text, drop_path=chosen.text_drop_path)
        return Detector(
            without_rescale(backbone), text, merge=chosen.merge, objectness=chosen.objectness,
            size_bias=chosen.size_bias,
        )  # fmt: skip

    def augment(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
        """Under a text tower that is not trained: `queries` [B, Q, E], each text of the training encoded once.

        The loss then sees embeddings, and the gradients of an example are those of image tower and heads alone.
        """
        from tasks.text.locked import is_trained

        targets = dict(batch.targets)
        asked = targets.pop("asked")
        if not is_trained(model.text):
            targets["queries"] = model.encoded(model.text, asked, targets["tokens"].shape[1])
        return replace(batch, targets=targets)

    def loss(self, model: nn.Module, batch: Batch, grid: Grid) -> dict[str, Any]:
        """Mean over images of the sum of `class`, `l1` and `giou`; `count` is the number of images.

        What is padding in every image of the batch costs nothing: a micro-batch of one image encodes its own queries.
        """
        from tasks.detection.model.losses import detection_losses
        from tasks.text.towers import encode_tokens

        targets = batch.targets
        tokens, labels, truth, present = (targets[k] for k in ("tokens", "labels", "boxes", "present"))
        embedded = targets.get("queries")
        if "widths" in targets:
            queries, instances, length = targets["widths"].largest()
            tokens, labels = tokens[:, :queries, :length], labels[:, :instances, :queries]
            truth, present = truth[:, :instances], present[:, :instances]
            embedded = None if embedded is None else embedded[:, :queries]
        mask = tokens[..., 0] > 0
        if embedded is None:
            embedded = encode_tokens(model.text, tokens.flatten(0, 1)).unflatten(0, mask.shape)
        found = model(batch.images, grid, embedded, mask)
        return {**detection_losses(found.logits, found.boxes, labels, truth, present), "count": len(batch)}

    def prepare(self, model: nn.Module, split: str) -> Tensor:
        """Queries [K, E] of all categories, in the order of their ids; once for all grids."""
        from tasks.text.towers import category_queries

        return category_queries(model.text, self.truth(split).names, self.options.prompts)

    @without_gradients
    def predict(self, model: nn.Module, batch: Batch, grid: Grid, prepared: Tensor) -> dict[str, Tensor]:
        """`score`, `category` [B, 300] (its place among the sorted ids), `box` [B, 300, 4]: x, y, w, h in pixels; the
        best 100 by COCO's rules."""
        from tasks.detection.boxes import to_pixels, top_pairs
        from tasks.detection.scoring.rules import RULES

        found = model(batch.images, grid, prepared, normalised=True)
        scores, categories, boxes = top_pairs(found.logits, found.boxes, RULES[self.rules].limit)
        height, width = batch.targets["size"].to(boxes.device)[:, :, None].unbind(1)
        return {"score": scores, "category": categories.int(), "box": to_pixels(boxes, height, width)}

    def meter(self, split: str) -> DetectionMeter:
        from tasks.detection.scoring.meter import DetectionMeter

        return DetectionMeter(self.truth(split), split)

    def pictures(
        self, model: Detector, split: str, samples: Mapping[View, Mapping[str, Any]], device: torch.device | str
    ) -> list[tuple[str, Any]]:
        """The first three images of the split: what is there, and the best boxes at each grid."""
        from tasks.detection.finder import Found
        from tasks.detection.panels import SHOWN, best_found, grid_caption, side_by_side

        truth, dataset, shown = self.truth(split), self.dataset(split), []
        for place in range(min(3, len(dataset))):
            image, own = dataset.picture(place), truth.image == place
            there = zip(truth.category[own], truth.box[own], strict=True)
            boxes = {"truth": [Found(truth.names[c], 1.0, tuple(b.tolist())) for c, b in there]}
            boxes |= {grid_caption(v): best_found(kept, place, truth.names) for v, kept in samples.items()}
            shown.append((f"what is there, and the {SHOWN} best boxes at each grid", side_by_side(image, boxes)))
        return shown

    def resampled(self, samples: Mapping[str, Any], weights: Any) -> Any:
        """AP over images drawn with their boxes; None for rows that were kept before hits were."""
        if "there" not in samples:
            return None
        from tasks.detection.scoring.resampling import resampled_ap

        return resampled_ap(*(samples[k] for k in ("score", "category", "hit", "miss", "there")), weights)
