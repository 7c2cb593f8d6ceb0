"""The segmentation task: crops in training, sliding windows at label resolution in evaluation."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.contract import (
    Batch,
    Grid,
    Options,
    Task,
    TaskCard,
    TaskError,
    View,
    option,
    without_gradients,
)
from tasks.data.errors import DataError
from tasks.data.sets.drives import drives_of
from tasks.data.sets.masked import masked_set
from tasks.data.splits import Masked
from tasks.protocols import protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from tasks.segmentation.heads import Segmenter
    from tasks.segmentation.scoring.meter import SegmentationMeter

PROTOCOL = protocol("segmentation")
SCENES_CROP = 120
SMALL_SETS = ("voc21", "camvid11", "ade20k_format_sample", "scenes")  # pictures of at most 320 px


@dataclass(frozen=True)
class SegmentationOptions(Options):
    """What can be chosen. `crop` is also the window of evaluation, and `grid = crop / patch`."""

    data: str = option("ade20k", "train", "a known set, or a folder of images/ and annotations/ under the data root")
    image_suffix: str = option("", "train", "how names of pictures end before the type of file, where masks' do not")
    mask_suffix: str = option("", "train", "how names of masks end before the type of file, such as _mask")
    head: str = option("linear", "train", "linear, segmenter or upernet", values=("segmenter", "upernet"))
    crop: int = option(0, "train", "pixels; 0: 480, 720 for Cityscapes, 240 for the small packs, 120 for scenes")
    num_classes: int = option(0, "train", "for a folder without meta.json")
    ignore_index: int = option(255, "train", "for a folder without meta.json")
    reduce_zero_label: bool = option(False, "train", "for a folder without meta.json")
    stride: int = option(0, "eval", "pixels between windows; 0: 15/16 of the crop, as mmseg's Segmenter configs")
    short_side: int = option(0, "eval", "evaluate with the shorter side at so many pixels; 0: the label's own size")
    scales: Any = option([1.0], "eval", "factors on the size, averaged as probabilities", values=([0.5, 1.0],))
    flip: bool = option(False, "eval", "average with the mirrored image")


class Segmentation(Task):
    """Semantic segmentation of ADE20k, Cityscapes, Pascal VOC, CamVid or any folder pair of that layout.

    Raises: TaskError for an invalid crop or stride.

    Example::

        task = build_task("segmentation", root="data", options={"data": "camvid11", "head": "linear"})
        model = task.model(build_backbone("flexivit_nano"))
    """

    Options = SegmentationOptions
    skippable = True

    def __init__(self, root: str | Path = ".", options: Mapping[str, Any] | None = None, seed: int = 0):
        super().__init__(root, options, seed)
        chosen = self.options
        small = chosen.data in SMALL_SETS
        published = PROTOCOL.recipe("small" if small else chosen.data if chosen.data in PROTOCOL.recipes else "other")
        usual = SCENES_CROP if chosen.data == "scenes" else published.settings["crop"]
        self.crop = chosen.crop or usual
        scale = published.settings.get("scale")
        self.scale: tuple[int, int] | None = (scale[0], scale[1]) if scale else None
        if self.crop < 1:
            raise TaskError(f"crop {self.crop} is not a number of pixels")
        self._evaluation()
        self._loaded: dict[str, Masked] = {}
        self.data = masked_set(
            chosen.data, self.root, image_suffix=chosen.image_suffix, mask_suffix=chosen.mask_suffix,
            count=chosen.num_classes, ignore=chosen.ignore_index, reduce_zero=chosen.reduce_zero_label,
        )  # fmt: skip
        version = PROTOCOL.version("upernet" if chosen.head == "upernet" else "segmentation")
        self.card = TaskCard(
            "segmentation", version, metrics=("mIoU", "mAcc", "aAcc"), image_size=self.crop,
            splits=self.data.card_splits(), sources={chosen.data: self.data.card.source},
            citation="Zhou et al. 2017 (ADE20K); Strudel et al. 2021 (Segmenter); Beyer et al. 2023 (FlexiViT)",
            cluster="drive" if self.data.form.drive else "",
        )  # fmt: skip
        self.recipe = published.made()
        if faster := published.settings.get("new_parts_rate"):
            new = ("head", "neck") if chosen.head == "upernet" else ("head",)
            self.recipe = dataclasses.replace(self.recipe, lr_groups=dict.fromkeys(new, faster))

    def _evaluation(self) -> tuple[int, int, tuple[float, ...], bool]:
        """Stride and shorter side in pixels, scales, flip, as the options say. Raises TaskError for invalid ones."""
        chosen = self.options
        share, whole = PROTOCOL.value("window_overlap")
        stride = chosen.stride or max(1, self.crop * share // whole)
        if not 0 < stride <= self.crop:
            raise TaskError(f"stride {stride} leaves gaps or stands still; it must be 1..{self.crop} (the window)")
        if chosen.short_side < 0:
            raise TaskError(f"short_side {chosen.short_side} is not a number of pixels")
        scales = tuple(chosen.scales) if isinstance(chosen.scales, list | tuple) else (chosen.scales,)
        if not scales or any(isinstance(s, bool) or not isinstance(s, int | float) or not s > 0 for s in scales):
            raise TaskError(f"scales {chosen.scales} must be one or more positive factors")
        return stride, chosen.short_side, scales, chosen.flip

    def indifferent(self) -> dict[str, str]:
        own = ("num_classes", "ignore_index", "reduce_zero_label")
        found = {} if self.data.own else dict.fromkeys(own, f"{self.options.data} says its own classes")
        windows = {"stride": "no picture is larger than a window"}
        return found | windows if self.options.data == "scenes" else found

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.data.meaning.names

    def masked(self, split: str) -> Masked:
        """Names, encoded pictures and masks of a split, listed once."""
        if split not in self._loaded:
            self._loaded[split] = self.data.load(split)
        return self._loaded[split]

    def reads(self, splits: tuple[str, ...] = ()) -> tuple[str, ...]:
        """The splits that a run reads which reports on `splits`; () stands for all that may be reported on."""
        reported = splits or tuple(s for s in self.card.splits if s not in ("train", "minival"))
        return (*(("train",) if "train" in self.card.splits else ()), *reported)

    def missing(self, splits: tuple[str, ...] = ()) -> list[DataError]:
        return self.data.problems(self.reads(splits))

    def fingerprint(self, split: str = "train") -> str:
        return self.masked(split).fingerprint

    def dataset(self, split: str) -> Any:
        from tasks.segmentation.pipelines import SegmentationData

        train = split == "train"
        return SegmentationData(self.masked(split), self.crop, train, self.scale, distorted=not self.moved())

    def moved(self) -> list[str]:
        return ["photometric distortion"] if self.trained_on == "cuda" else []

    def augment(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
        """Photometric distortion of crops, uint8 [B, 3, S, S], where decoding has left it out."""
        if not self.moved():
            return batch
        from tasks.segmentation.distortion import distort, draw_distortion

        drawn = draw_distortion(len(batch), generator).to(batch.images.device)
        return Batch(batch.ids, distort(batch.images, drawn), batch.targets, batch.features)

    def collate(self, samples: Sequence[tuple[int, Tensor, dict[str, Tensor]]]) -> Batch:
        """Crops are stacked; pictures and labels of evaluation stay lists, also where sizes happen to agree."""
        import torch

        ids, images, targets = zip(*samples, strict=True)
        same = all(image.shape == (3, self.crop, self.crop) for image in images)
        gather = torch.stack if same else list
        labels = gather([target["label"] for target in targets])
        sizes = torch.stack([target["size"] for target in targets])
        return Batch(torch.tensor(ids), gather(list(images)), {"label": labels, "size": sizes})

    def model(self, backbone: nn.Module) -> Segmenter:
        from tasks.segmentation.heads import Segmenter

        return Segmenter(backbone, self.options.head, len(self.classes))

    def loss(self, model: nn.Module, batch: Batch, grid: Grid) -> dict[str, Any]:
        """Mean cross-entropy over labelled pixels; `count` is their number. Images are crops."""
        import torch

        from tasks.data.readers.label_maps import IGNORE

        labels = batch.targets["label"]
        pixels = model.backbone.normalise(batch.images)
        # What lies outside a small picture must be the mean colour, which bytes cannot say: zero after normalisation
        rows = torch.arange(pixels.shape[-2], device=pixels.device)
        columns = torch.arange(pixels.shape[-1], device=pixels.device)
        height, width = batch.targets["size"].to(pixels.device).unbind(1)
        inside = (rows[None] < height[:, None])[:, :, None] & (columns[None] < width[:, None])[:, None]
        losses = model.loss(model(pixels * inside[:, None], grid), labels)
        accuracy = losses["acc_seg"].detach() / 100
        return {"loss": losses["loss_ce"], "count": (labels != IGNORE).sum(), "aAcc": accuracy.reshape(())}

    @without_gradients
    def labels(self, model: nn.Module, batch: Batch, grid: Grid) -> list[Tensor]:
        """Predicted label maps uint8 `[H, W]`, in the sizes of the batch's labels."""
        from tasks.segmentation.windows import predict_labels

        stride, short_side, scales, flip = self._evaluation()
        # one at a time, because sizes may differ
        images = [model.backbone.normalise(image[None])[0] for image in batch.images]
        cut = getattr(model.backbone, "chunks", None)
        return predict_labels(
            lambda windows: model(windows, grid),
            images, self.crop, stride, [label.shape for label in batch.targets["label"]], short_side, scales, flip,
            chunks=None if cut is None else lambda windows: cut(windows, grid),
        )  # fmt: skip

    def predict(self, model: nn.Module, batch: Batch, grid: Grid, prepared: Any) -> dict[str, Tensor]:
        """`counts` int64 `[B, 3, C]`: intersection, predicted and labelled area of each image and class."""
        import torch

        from tasks.segmentation.scoring.confusion import image_counts

        found = zip(self.labels(model, batch, grid), batch.targets["label"], strict=True)
        return {"counts": torch.stack([image_counts(p, label, model.num_classes) for p, label in found])}

    def meter(self, split: str) -> SegmentationMeter:
        from tasks.segmentation.scoring.meter import SegmentationMeter

        form = self.data.form
        drives = drives_of(self.masked(split).names, form.drive, form.drive_block) if form.drive else None
        return SegmentationMeter(self.classes, drives)

    def pictures(
        self, model: nn.Module, split: str, samples: Mapping[View, Mapping[str, Any]], device: torch.device | str
    ) -> list[tuple[str, Any]]:
        """Three images of the split: image, truth, and the labels predicted at each grid."""
        from torch.nn import functional as F

        from tasks.segmentation.panels import panel

        dataset, shown = self.dataset(split), []
        for i in sorted({k * len(dataset) // 3 for k in range(3)}):
            batch = self.collate([(i, *dataset[i])])
            truth = batch.targets["label"][0]
            moved = batch.to(device)
            labels = {}
            for view in samples:
                with self.viewing(model, view) as own:
                    labels[f"grid {view}"] = own.labels(model, moved, view.grid)[0].cpu()
            image = F.interpolate(batch.images[0][None].float(), truth.shape, mode="area")[0].byte()
            shown.append(("image, truth, and the labels predicted at each grid", panel(image, truth, labels)))
        return shown

    def sums(self, samples: Mapping[str, Any]) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        return samples["counts"].astype(np.float64), mean_iou


def mean_iou(counts: np.ndarray) -> np.ndarray:
    """mIoU [R] of summed counts [R, 3, C]: intersections, predicted and labelled pixels; without classes that are
    neither predicted nor labelled."""
    intersection, predicted, labelled = counts[:, 0], counts[:, 1], counts[:, 2]
    union = predicted + labelled - intersection
    return np.nanmean(np.where(union > 0, intersection / np.maximum(union, 1), np.nan), axis=1)
