"""mmsegmentation's dataset classes and pipelines behind a stateless, map-style dataset.

Importing this module imports mmseg (seconds); only `Segmentation.dataset` does.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tasks.contract import TaskError
from tasks.data.pictures import check_picture
from tasks.segmentation import mmcv_lite
from tasks.segmentation.labels import check_sizes, read_label_map, to_classes
from tasks.segmentation.scoring.confusion import IGNORE
from tasks.segmentation.sets import SegmentationSet

mmcv_lite.install()

import cv2  # noqa: E402
from mmcv.transforms import Compose, LoadImageFromFile  # noqa: E402
from mmseg.datasets import transforms as _transforms  # noqa: E402, F401  (fills the registry)
from mmseg.datasets.transforms import LoadAnnotations  # noqa: E402
from mmseg.registry import DATASETS, TRANSFORMS  # noqa: E402

MINIVAL_SHARE = 0.1


@TRANSFORMS.register_module()
class LoadCheckedImage(LoadImageFromFile):
    """mmseg's image loader, with a TaskError naming the file that cannot be read."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        # OpenCV would decode any size, and the rest of an interrupted copy as grey
        check_picture(results["img_path"], results["img_path"])
        try:
            return super().transform(results)
        except (AssertionError, AttributeError, cv2.error, OSError) as error:
            raise TaskError(f"{results['img_path']} cannot be read as an image") from error


@TRANSFORMS.register_module()
class LoadCheckedAnnotations(LoadAnnotations):
    """mmseg's annotation loader, with checks: 8-bit, labels in range, the size of the image. 255 is ignored."""

    def __init__(self, num_classes: int, ignore_index: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_classes, self.label_to_ignore = num_classes, ignore_index

    def _load_seg_map(self, results: dict[str, Any]) -> None:
        path = results["seg_map_path"]
        values = read_label_map(path)
        check_sizes(results["ori_shape"], values.shape, results["img_path"], path)
        reduce_zero = results["reduce_zero_label"]
        results["gt_seg_map"] = to_classes(values, self.num_classes, self.label_to_ignore, reduce_zero, path)
        results["seg_fields"].append("gt_seg_map")


def train_pipeline(crop: int) -> list[dict[str, Any]]:
    """mmseg's usual augmentation: short side at 0.5-2 times the crop, crop, flip, photometric distortion."""
    return [
        {"type": "RandomResize", "scale": (4 * crop, crop), "ratio_range": (0.5, 2.0), "keep_ratio": True},
        {"type": "RandomCrop", "crop_size": (crop, crop), "cat_max_ratio": 0.75},
        {"type": "RandomFlip", "prob": 0.5},
        {"type": "PhotoMetricDistortion"},
    ]


@contextmanager
def seeded(generator: torch.Generator) -> Iterator[None]:
    """Let the global generators that mmseg's transforms draw from follow `generator`; restored afterwards."""
    seed = int(torch.randint(2**31, (), generator=generator))
    before = np.random.get_state(), random.getstate()
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before[0])
        random.setstate(before[1])


def held_out(ids: list[str], share: float = MINIVAL_SHARE) -> set[str]:
    """The ids of minival: those with the lowest hashes, so that no list need be kept and no seed matters."""
    count = max(1, round(share * len(ids))) if len(ids) > 1 else 0
    return set(sorted(ids, key=lambda i: hashlib.sha256(i.encode()).hexdigest())[:count])


def mmseg_dataset(found: SegmentationSet, split: str) -> Any:
    """mmseg's own dataset object over the folders of a split, without a pipeline."""
    spec = found.spec
    images, annotations, ids = found.folders(split)
    config: dict[str, Any] = {
        "type": spec.mmseg_type,
        "data_prefix": {"img_path": str(images), "seg_map_path": str(annotations)},
        "img_suffix": spec.image_suffix, "seg_map_suffix": spec.mask_suffix, "ignore_index": IGNORE,
        "reduce_zero_label": spec.reduce_zero_label, "pipeline": [],
    }  # fmt: skip
    if spec.classes:
        config["metainfo"] = {"classes": spec.classes}
    if ids is not None:
        if not ids.is_file():
            raise TaskError(f"no list of images {ids}")
        config["ann_file"] = str(ids)
    return DATASETS.build(config)


class SegmentationData(Dataset):
    """`data[i]` -> image uint8 RGB `[3, H, W]` and `{"label": uint8 [H, W], "size": int64 [2]}`.

    Evaluation splits come in their own size. `train` comes as crops: `data.sample(i, generator)`, a pure function of
    both; `data[i]` is the sample of a generator seeded with i. A crop that is larger than the picture is filled with
    zeros and label 255; `size` (height, width) says how much of it is picture.

    Raises: TaskError for a missing pair here, for a bad file when it is read.

    Example: `image, target = SegmentationData(find_set("voc21", "data"), "val", crop=240)[0]`
    """

    def __init__(self, found: SegmentationSet, split: str, crop: int):
        self.crop, self.train = crop, split == "train"
        self.source = mmseg_dataset(found, split)
        self.classes = tuple(self.source.metainfo["classes"])
        infos = [self.source.get_data_info(i) for i in range(len(self.source))]
        self.names = [self._name(info["img_path"], found, split) for info in infos]
        self.indices = list(range(len(infos)))
        if split in ("train", "minival"):
            aside = held_out(self.names)
            self.indices = [i for i in self.indices if (self.names[i] in aside) == (split == "minival")]
        self._check_pairs(found, split, infos)
        self.load = Compose([LoadCheckedImage(), LoadCheckedAnnotations(len(self.classes), found.spec.ignore_index)])
        self.pipeline = Compose([TRANSFORMS.build(config) for config in train_pipeline(crop)])

    @staticmethod
    def _name(path: str, found: SegmentationSet, split: str) -> str:
        relative = Path(path).relative_to(found.folders(split)[0]).as_posix()
        return relative.removesuffix(found.spec.image_suffix)

    def _check_pairs(self, found: SegmentationSet, split: str, infos: list[dict[str, Any]]) -> None:
        images, annotations, ids = found.folders(split)
        if not infos:
            raise TaskError(f"no image *{found.spec.image_suffix} in {images}")
        masks = {p.relative_to(annotations).as_posix() for p in annotations.rglob(f"*{found.spec.mask_suffix}")}
        wanted = {f"{name}{found.spec.mask_suffix}" for name in self.names}
        if wanted - masks:
            raise TaskError(f"no label map {annotations / min(wanted - masks)} for an image of {images}")
        if ids is None and masks - wanted:
            raise TaskError(f"no image in {images} for the label map {annotations / min(masks - wanted)}")

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        """The id of an image: its path in the folder of images, without suffix."""
        return self.names[self.indices[index]]

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        if self.train:
            return self.sample(index, torch.Generator().manual_seed(index))
        return self._tensors(self._read(index))

    def sample(self, index: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """An augmented crop, `[3, crop, crop]`."""
        results = self._read(index)
        height, width = results["img"].shape[:2]
        if max(height, width) > 4 * self.crop * min(height, width):
            raise TaskError(f"{results['img_path']} is {width}x{height}: too narrow to be resized for training")
        with seeded(generator):
            return self._tensors(self.pipeline(results), self.crop)

    def _read(self, index: int) -> dict[str, Any]:
        return self.load(self.source.get_data_info(self.indices[index]))

    @staticmethod
    def _tensors(results: dict[str, Any], side: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
        image, label = results["img"][..., ::-1], results["gt_seg_map"]  # mmseg's pictures are BGR
        height, width = label.shape
        if side:
            image = np.pad(image, ((0, side - height), (0, side - width), (0, 0)))
            label = np.pad(label, ((0, side - height), (0, side - width)), constant_values=IGNORE)
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return pixels, {"label": torch.from_numpy(label.copy()), "size": torch.tensor([height, width])}
