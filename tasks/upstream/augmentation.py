"""Augmentation of a whole batch where it lies: crops, mirroring, colours. Nothing waits for the host.

Each function takes parameters that were drawn on the CPU, from a generator of the step: the same on every device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

GREY = (0.299, 0.587, 0.114)  # of red, green, blue, ITU-R BT.601


def draw_boxes(count: int, height: int, width: int, area: tuple[float, float], generator: torch.Generator) -> Tensor:
    """int64 [count, 4] of (top, left, height, width) in pixels, `area` of the picture and aspect 3/4..4/3.

    A side that would be longer than the picture's is cut to it, where an Inception crop would be drawn again.

    Example: `draw_boxes(512, 64, 64, (0.3, 1.0), torch.Generator().manual_seed(0))`
    """
    share = torch.rand(count, generator=generator, dtype=torch.float64) * (area[1] - area[0]) + area[0]
    ends = math.log(3 / 4), math.log(4 / 3)
    aspect = (torch.rand(count, generator=generator, dtype=torch.float64) * (ends[1] - ends[0]) + ends[0]).exp()
    pixels = share * height * width
    tall = (pixels / aspect).sqrt().round().clamp(1, height).long()
    wide = (pixels * aspect).sqrt().round().clamp(1, width).long()
    place = torch.rand(2, count, generator=generator, dtype=torch.float64)
    top, left = (place[0] * (height - tall + 1)).long(), (place[1] * (width - wide + 1)).long()
    return torch.stack([top, left, tall, wide], 1)


def draw_mirrored(count: int, generator: torch.Generator) -> Tensor:
    """bool [count], true every second time."""
    return torch.rand(count, generator=generator) < 0.5


def draw_factors(count: int, strength: float, generator: torch.Generator) -> Tensor:
    """float32 [count, 3] in 1 - strength..1 + strength: of brightness, contrast and saturation."""
    return 1 + strength * (2 * torch.rand(count, 3, generator=generator) - 1)


def _axis(start: Tensor, length: Tensor, old: int, new: int) -> Tensor:
    """float32 [B, new, old]: weights of the pixels start..start + length that each of `new` pixels is made of."""
    scale = length.float() / new  # below 1 a picture grows: plain bilinear; above 1 the triangle widens (antialias)
    source = start[:, None] + (torch.arange(new, device=start.device) + 0.5) * scale[:, None]
    pixel = torch.arange(old, device=start.device)
    distance = (source[:, :, None] - (pixel + 0.5)).abs() / scale.clamp_min(1.0)[:, None, None]
    inside = (pixel >= start[:, None]) & (pixel < (start + length)[:, None])
    weights = (1 - distance).clamp_min(0) * inside[:, None]
    return weights / weights.sum(-1, keepdim=True)


def crop_and_resize(images: Tensor, boxes: Tensor, mirrored: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut each picture to its box and resize it, bilinear with antialias, as two products with small matrices.

    Args:
        images: uint8 or float [B, C, h, w].
        boxes: [B, 4] of (top, left, height, width) in pixels.
        mirrored: bool [B], left to right.

    Returns: float32 [B, C, *size], values as in `images`.

    Example: `crop_and_resize(images, draw_boxes(8, 64, 64, (0.3, 1), g), draw_mirrored(8, g), (120, 120))`
    """
    with torch.autocast(images.device.type, enabled=False):
        rows = _axis(boxes[:, 0], boxes[:, 2], images.shape[2], size[0])
        columns = _axis(boxes[:, 1], boxes[:, 3], images.shape[3], size[1])
        columns = torch.where(mirrored[:, None, None], columns.flip(1), columns)
        return rows[:, None] @ images.float() @ columns.transpose(1, 2)[:, None]


def jitter_colours(images: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast and saturation of float [B, 3, H, W] in 0..255, each by its factor of `factors` [B, 3].

    Example: `jitter_colours(images, draw_factors(len(images), 0.3, generator))`
    """
    light, contrast, colour = (factors[:, i, None, None, None] for i in range(3))
    images = images * light
    red, green, blue = GREY
    grey = red * images[:, :1] + green * images[:, 1:2] + blue * images[:, 2:]
    mean = grey.mean((2, 3), keepdim=True)
    # the same mean before and after, so that both may be done at once
    return (mean + contrast * (grey - mean) + contrast * colour * (images - grey)).clamp(0, 255)
