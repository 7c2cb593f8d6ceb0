"""Pictures to squares: big_vision's numerics (truncated bilinear and area resizes), and torchvision's usual ones.

All functions take and give uint8 `[3, h, w]`; random ones take a generator and are functions of it alone.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tasks.classification.windows import Window, resize_area, resize_shorter, shorter_to
from tasks.protocols import protocol

PROTOCOL = protocol("classification")
INCEPTION_AREA, INCEPTION_ASPECTS = PROTOCOL.value("inception_area"), PROTOCOL.value("inception_aspects")
INCEPTION_ATTEMPTS = PROTOCOL.value("inception_attempts")
LARGER, SMALLER = PROTOCOL.value("larger_side")


def larger_side(size: int) -> int:
    """What is resized to before a crop of `size`: 272 for 240, 448 for 384 is the official l_res; 136 for 120."""
    return size // SMALLER * LARGER


def resize_bilinear(image: Tensor, height: int, width: int) -> Tensor:
    """TensorFlow's `resize(method="bilinear")` cast to uint8: no antialiasing, truncated."""
    scaled = F.interpolate(image[None].float(), size=(height, width), mode="bilinear", align_corners=False)[0]
    return scaled.clamp(0, 255).to(torch.uint8)


def resize_small(image: Tensor, side: int) -> Tensor:
    """big_vision's `resize_small`: the shorter side becomes `side`, by area; sides rounded half to even."""
    return resize_area(image, *_small_size(image, side))


def _small_size(image: Tensor, side: int) -> tuple[int, int]:
    height, width = image.shape[1:]
    factor = np.float32(side) / np.float32(min(height, width))
    return int(np.rint(height * factor)), int(np.rint(width * factor))


def central_crop(image: Tensor, side: int) -> Tensor:
    """The middle `side` x `side`; of an odd rest the smaller half comes off above and left."""
    top, left = (image.shape[1] - side) // 2, (image.shape[2] - side) // 2
    assert top >= 0 and left >= 0, (tuple(image.shape), side)
    return image[:, top : top + side, left : left + side].contiguous()


def random_crop(image: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """A `side` x `side` cut at a random place."""
    top = _randint(image.shape[1] - side + 1, generator)
    left = _randint(image.shape[2] - side + 1, generator)
    return image[:, top : top + side, left : left + side].contiguous()


def inception_box(
    height: int, width: int, generator: torch.Generator, smallest: float = INCEPTION_AREA[0]
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a training crop, as TensorFlow's `sample_distorted_bounding_box` draws it.

    The aspect is uniform in 0.75..1.33, then the height uniform between those that give `smallest` and all of the area:
    small crops are more frequent than under a uniform area (mean 0.34 of a 375x500 picture, not 0.43). The whole
    picture after 100 failed tries. Source: `GenerateRandomCrop` in tensorflow/core/kernels/image, and big_vision's
    `inception_crop`, which passes no boxes and `min_object_covered=0`.

    Example: `inception_box(375, 500, torch.Generator().manual_seed(0))`
    """
    least, most = smallest * height * width, INCEPTION_AREA[1] * height * width
    for _ in range(INCEPTION_ATTEMPTS):
        aspect = _uniform(*INCEPTION_ASPECTS, generator)
        low, high = round(math.sqrt(least / aspect)), round(math.sqrt(most / aspect))
        if round(high * aspect) > width:
            high = int((width + 0.5 - 1e-7) / aspect)
        high = min(high, height)
        h = min(low, high)
        h += _randint(high - h + 1, generator)
        w = round(h * aspect)
        if w * h < least:
            h, w = h + 1, round((h + 1) * aspect)
        if least <= w * h <= most and 0 < w <= width and 0 < h <= height:
            # exclusive of the last place, as TensorFlow's
            return _randint(max(height - h, 1), generator), _randint(max(width - w, 1), generator), h, w
    return 0, 0, height, width


def resized_crop_box(height: int, width: int, generator: torch.Generator) -> tuple[int, int, int, int]:
    """(top, left, height, width) as torchvision's `RandomResizedCrop` draws it: area uniform in 8..100 %, aspect
    log-uniform in 3/4..4/3; the largest central box of an allowed aspect after ten failed tries.

    Example: `resized_crop_box(375, 500, torch.Generator().manual_seed(0))`
    """
    narrow, wide = 3 / 4, 4 / 3
    for _ in range(10):
        area = height * width * _uniform(0.08, 1.0, generator)
        aspect = math.exp(_uniform(math.log(narrow), math.log(wide), generator))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return _randint(height - h + 1, generator), _randint(width - w + 1, generator), h, w
    h, w = height, width
    if width / height < narrow:
        h = round(width / narrow)
    elif width / height > wide:
        w = round(height * wide)
    return (height - h) // 2, (width - w) // 2, h, w


def flip(image: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrored left to right, every second time."""
    return image.flip(-1) if _uniform(0, 1, generator) < 0.5 else image


def training_view(image: Tensor, side: int, style: str, crop: str, generator: torch.Generator) -> Tensor:
    """A random crop and mirroring of a picture, `side` x `side`.

    crop `inception`: random area and aspect; `resmall`: shorter side to `larger_side(side)`, then a random cut;
    `resize`: squeezed to a square of that side, then a random cut.

    Example: `training_view(picture, 240, "big_vision", "inception", generator)`
    """
    large = larger_side(side)
    if crop == "inception":
        box = inception_box if style == "big_vision" else resized_crop_box
        top, left, h, w = box(*image.shape[1:], generator)
        image = _resized(image[:, top : top + h, left : left + w], side, side, style)
    elif crop == "resmall":
        height, width = _shorter_size(image, large, style)
        top = _randint(height - side + 1, generator)
        image = _shorter_cut(image, large, style, (top, _randint(width - side + 1, generator), side, side))
    else:
        image = random_crop(_resized(image, large, large, style), side, generator)
    return flip(image, generator)


def evaluation_view(image: Tensor, side: int, style: str, squeeze: bool = False) -> Tensor:
    """The shorter side to `larger_side(side)`, then the middle `side` x `side`.

    `squeeze`: both sides to it, which changes the aspect (`resize(272)` of the official distillation configurations).
    """
    large = larger_side(side)
    if squeeze:
        return central_crop(_resized(image, large, large, style), side)
    height, width = _shorter_size(image, large, style)
    return _shorter_cut(image, large, style, ((height - side) // 2, (width - side) // 2, side, side))


def _resized(image: Tensor, height: int, width: int, style: str) -> Tensor:
    if style == "big_vision":
        return resize_bilinear(image, height, width)
    assert style == "torchvision", style
    from torchvision.transforms.v2 import functional as V

    return V.resize(image, [height, width], antialias=True)


def _shorter_size(image: Tensor, side: int, style: str) -> tuple[int, int]:
    """(height, width) of a picture whose shorter side becomes `side`."""
    return _small_size(image, side) if style == "big_vision" else shorter_to(*image.shape[1:], side)


def _shorter_cut(image: Tensor, side: int, style: str, window: Window) -> Tensor:
    """A window of the picture whose shorter side becomes `side`; nothing else of it is made."""
    if style == "big_vision":
        return resize_area(image, *_small_size(image, side), window)
    assert style == "torchvision", style
    return resize_shorter(image, side, window)


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def _randint(stop: int, generator: torch.Generator) -> int:
    return int(torch.randint(stop, (), generator=generator))
