"""mmsegmentation's training transforms behind a stateless, map-style dataset.

Importing this module imports mmseg (seconds); only `Segmentation.dataset` does.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tasks.contract import TaskError
from tasks.data.pictures import read_rgb
from tasks.data.readers.label_maps import IGNORE, UPRIGHT, check_sizes
from tasks.data.splits import Masked
from tasks.protocols import protocol
from tasks.segmentation import mmcv_lite

mmcv_lite.install()

from mmcv.transforms import Compose  # noqa: E402
from mmseg.datasets import transforms as _transforms  # noqa: E402, F401  (fills the registry)
from mmseg.registry import TRANSFORMS  # noqa: E402

PROTOCOL = protocol("segmentation")


def train_pipeline(crop: int, scale: tuple[int, int] | None = None, distorted: bool = True) -> list[dict[str, Any]]:
    """mmseg's usual augmentation: resize, crop, flip, photometric distortion.

    `scale`: the longest and the shorter side in pixels that a factor of 0.5-2 multiplies, as large as will fit;
    None: the shorter side at the crop. `distorted`: with the distortion; else `distortion.distort` does it later.
    """
    ratios, share = tuple(PROTOCOL.value("ratio_range")), PROTOCOL.value("largest_class_share")
    return [
        {"type": "RandomResize", "scale": scale or (4 * crop, crop), "ratio_range": ratios, "keep_ratio": True},
        {"type": "RandomCrop", "crop_size": (crop, crop), "cat_max_ratio": share},
        {"type": "RandomFlip", "prob": PROTOCOL.value("flip")},
        *([{"type": "PhotoMetricDistortion"}] if distorted else []),
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


class SegmentationData(Dataset):
    """`data[i]` -> image uint8 RGB `[3, H, W]` and `{"label": uint8 [H, W], "size": int64 [2]}`.

    Evaluation splits come in their own size. `train` comes as crops: `data.sample(i, generator)`, a pure function of
    both; `data[i]` is the sample of a generator seeded with i. A crop that is larger than the picture is filled with
    zeros and label 255; `size` (height, width) says how much of it is picture.

    Raises: DataError for a bad file when it is read.

    Example: `image, target = SegmentationData(masked_set("voc21", "data").load("val"), crop=240)[0]`
    """

    def __init__(
        self, pairs: Masked, crop: int, train: bool = False, scale: tuple[int, int] | None = None,
        distorted: bool = True,
    ):  # fmt: skip
        self.pairs, self.crop, self.train = pairs, crop, train
        self.classes = pairs.meaning.names
        self.pipeline = Compose([TRANSFORMS.build(config) for config in train_pipeline(crop, scale, distorted)])
        pairs.pictures.open()

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        """The id of an image: its path in the folder of images, without suffix."""
        return self.pairs.names[index]

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
        """What mmseg's transforms work on; their pictures are BGR."""
        pictures, masks = self.pairs.pictures, self.pairs.masks
        place, mask = pictures.where(index), masks.where(index)
        image = np.ascontiguousarray(read_rgb(pictures.read(index), place)[..., ::-1])
        label = self.pairs.meaning.classes(masks.read(index), mask)
        check_sizes(image.shape, label.shape, place, mask, UPRIGHT)
        return {
            "img": image, "img_shape": image.shape[:2], "ori_shape": image.shape[:2], "img_path": place,
            "gt_seg_map": label, "seg_fields": ["gt_seg_map"],
        }  # fmt: skip

    @staticmethod
    def _tensors(results: dict[str, Any], side: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
        image, label = results["img"][..., ::-1], results["gt_seg_map"]  # mmseg's pictures are BGR
        height, width = label.shape
        if side:
            image = np.pad(image, ((0, side - height), (0, side - width), (0, 0)))
            label = np.pad(label, ((0, side - height), (0, side - width)), constant_values=IGNORE)
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return pixels, {"label": torch.from_numpy(label.copy()), "size": torch.tensor([height, width])}
