"""Pictures of training: flip, crop, grey padding, mosaics; boxes follow. All randomness comes from a generator.

Order and numbers are OWL-ViT's (`preprocessing/image_ops.py`, `preprocessing/mosaic.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.contract import TaskError
from tasks.detection.boxes import pad_square
from tasks.protocols import protocol

PROTOCOL = protocol("detection")
AREA, ASPECT = tuple(PROTOCOL.value("crop_area")), tuple(PROTOCOL.value("crop_aspects"))
KEPT = PROTOCOL.value("box_kept")  # a box that loses more of its area is no longer the thing
INSTANCES, ATTEMPTS, FLIP = (PROTOCOL.value(name) for name in ("instances", "crop_attempts", "flip"))


@dataclass(frozen=True)
class Tile:
    """`image` uint8 [3, H, W]; `boxes` float32 [M, 4] corners, in pixels until padded, then in the unit square;
    `categories` int64 [M]; `negatives`: categories known to be absent."""

    image: Tensor
    boxes: Tensor
    categories: Tensor
    negatives: frozenset[int]


def uniform(generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def flip(tile: Tile) -> Tile:
    """Left and right exchanged."""
    x0, y0, x1, y1 = tile.boxes.unbind(1)
    width = tile.image.shape[2]
    return Tile(tile.image.flip(2), torch.stack([width - x1, y0, width - x0, y1], 1), tile.categories, tile.negatives)


def crop_window(
    height: int,
    width: int,
    generator: torch.Generator,
    area: tuple[float, float] = AREA,
    aspect: tuple[float, float] = ASPECT,
) -> tuple[int, int, int, int]:
    """Top, left, height, width of a random crop: its share of the picture's area and its width / height lie in ranges.

    As TensorFlow's `sample_distorted_bounding_box`: an aspect, then a height among those that give a fitting area; the
    whole picture where no attempt fits.
    """
    for _ in range(ATTEMPTS):
        ratio = uniform(generator, *aspect)
        low, high = (round(math.sqrt(share * height * width / ratio)) for share in area)
        high = min(high, height, int((width + 0.5) / ratio))
        low = min(low, high)
        tall = low + int(torch.randint(high - low + 1, (), generator=generator))
        wide = min(round(tall * ratio), width)
        if tall < 1 or wide < 1 or not area[0] <= tall * wide / (height * width) <= area[1]:
            continue
        top = int(torch.randint(height - tall + 1, (), generator=generator))
        left = int(torch.randint(width - wide + 1, (), generator=generator))
        return top, left, tall, wide
    return 0, 0, height, width


def crop(tile: Tile, window: tuple[int, int, int, int], kept: float = KEPT) -> Tile:
    """Cut out a window; boxes are cut with it, and dropped where less than `kept` of their area is left."""
    top, left, height, width = window
    boxes = tile.boxes - torch.tensor([left, top, left, top])
    edge = torch.tensor([width, height, width, height])
    cut = torch.minimum(boxes.clamp(min=0), edge)
    before, after = ((b[:, 2:] - b[:, :2]).clamp(min=0).prod(1) for b in (boxes, cut))
    stays = (after > 0) & (after >= kept * before)
    image = tile.image[:, top : top + height, left : left + width]
    return Tile(image, cut[stays], tile.categories[stays], tile.negatives)


def padded(tile: Tile, side: int, grey: float) -> Tile:
    """Longer side to `side`, grey below and to the right; boxes in the unit square from here on."""
    height, width = tile.image.shape[1:]
    image, _ = pad_square(tile.image, side, grey)
    return Tile(image, tile.boxes / max(height, width), tile.categories, tile.negatives)


def augmented(tile: Tile, side: int, grey: float, generator: torch.Generator) -> Tile:
    """Flip in half of the cases, crop, pad."""
    if uniform(generator) < FLIP:
        tile = flip(tile)
    return padded(crop(tile, crop_window(*tile.image.shape[1:], generator)), side, grey)


def mosaic(tiles: Sequence[Tile]) -> Tile:
    """n x n padded tiles in one picture, row by row; what any tile shows is no negative of the whole.

    Example: `mosaic([augmented(t, 120, 0.5, generator) for t in four]).image.shape` is [3, 240, 240].
    """
    count = math.isqrt(len(tiles))
    if count * count != len(tiles):
        raise TaskError(f"{len(tiles)} tiles make no square mosaic")
    rows = [torch.cat([t.image for t in tiles[r * count : (r + 1) * count]], 2) for r in range(count)]
    moved = [
        (t.boxes + torch.tensor([i % count, i // count, i % count, i // count])) / count for i, t in enumerate(tiles)
    ]
    categories = torch.cat([t.categories for t in tiles])
    negatives = frozenset().union(*(t.negatives for t in tiles)) - set(categories.tolist())
    return Tile(torch.cat(rows, 1), torch.cat(moved), categories, negatives)


def at_most(tile: Tile, generator: torch.Generator, limit: int = INSTANCES) -> Tile:
    """At most `limit` instances, in random order: a plain cut would lose the bottom tiles of every full mosaic."""
    order = torch.randperm(len(tile.boxes), generator=generator)[:limit]
    return Tile(tile.image, tile.boxes[order], tile.categories[order], tile.negatives)
