"""Resized pictures of which only a window is made: a picture of any shape costs a few times its own memory."""

from __future__ import annotations

import functools

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

WHOLE = 1 << 22  # pixels up to which torchvision's resize is left to make a whole enlarged picture
Window = tuple[int, int, int, int]  # top, left, height, width in the resized picture
Weights = tuple[csr_matrix, int, int]  # [cells, source cells that they need], the first of these, and the end


def resize_area(image: Tensor, height: int, width: int, window: Window | None = None) -> Tensor:
    """TensorFlow's `resize(method="area")` cast to uint8: exact means over fractional boxes, truncated.

    Args: image uint8 [3, h, w]. window: the part of the resized picture that is made; None: all of it.
    Returns: uint8 [3, height, width], or of the window's size.

    A cell covers few others: as a sparse product it takes a sixth of the time of a dense one.

    Example: `resize_area(image, 272, 363, (16, 61, 240, 240)).shape == (3, 240, 240)`
    """
    top, left, rows, columns = window or (0, 0, height, width)
    down = _area_weights(image.shape[1], height, top, rows)
    across = _area_weights(image.shape[2], width, left, columns)
    # a mean of equal bytes must not fall below that byte by rounding in the sums
    return (_product(image, down, across) + 1e-4).clamp(0, 255).to(torch.uint8).permute(2, 1, 0).contiguous()


def resize_shorter(image: Tensor, side: int, window: Window) -> Tensor:
    """torchvision's `resize(image, [side], antialias=True)`, cut to the window.

    A narrow picture would be enlarged to many times its pixels: of it the window alone is made, by the same triangles
    of weights, which may differ from torchvision's fixed-point sums by one level.

    Example: `resize_shorter(image, 272, (16, 61, 240, 240)).shape == (3, 240, 240)`
    """
    height, width = shorter_to(image.shape[1], image.shape[2], side)
    top, left, rows, columns = window
    if height * width <= max(WHOLE, 2 * image.shape[1] * image.shape[2]):
        from torchvision.transforms.v2 import functional as V

        return V.resize(image, [side], antialias=True)[:, top : top + rows, left : left + columns].contiguous()
    down = _triangle_weights(image.shape[1], height, top, rows)
    across = _triangle_weights(image.shape[2], width, left, columns)
    return _product(image, down, across).round().clamp(0, 255).to(torch.uint8).permute(2, 1, 0).contiguous()


def shorter_to(height: int, width: int, side: int) -> tuple[int, int]:
    """(height, width) with the shorter side at `side`, the longer truncated, as torchvision has it."""
    return (side, int(side * width / height)) if height <= width else (int(side * height / width), side)


def _product(image: Tensor, down: Weights, across: Weights) -> Tensor:
    """float32 [columns, rows, 3]: both passes over the part of the picture that the window needs."""
    (rows, top, bottom), (columns, left, right) = down, across
    part = image[:, top:bottom, left:right]
    colours, height, width = part.shape
    lines = part.permute(1, 0, 2).reshape(height, colours * width).numpy().astype(np.float32)
    lines = rows @ lines
    lines = np.ascontiguousarray(lines.reshape(rows.shape[0] * colours, width).T)
    return torch.from_numpy(columns @ lines).view(columns.shape[0], rows.shape[0], colours)


@functools.lru_cache(maxsize=4096)
def _area_weights(source: int, target: int, first: int, count: int) -> Weights:
    """How much of each source cell the output cells `first` and on cover; rows sum to 1."""
    scale = source / target
    start = np.arange(first, first + count) * scale
    cells, place = _cells(np.floor(start), np.minimum(np.ceil(start + scale), source), source)
    low, high = np.maximum(start[cells], place), np.minimum(start[cells] + scale, place + 1)
    return _sparse(cells, place, (np.clip(high - low, 0, None) / scale).astype(np.float32), count)


@functools.lru_cache(maxsize=4096)
def _triangle_weights(source: int, target: int, first: int, count: int) -> Weights:
    """Bilinear weights with antialiasing, as torch's: triangles of `max(1, scale)` source cells to each side."""
    scale = source / target
    support = max(1.0, scale)
    centre = (np.arange(first, first + count) + 0.5) * scale
    cells, place = _cells(np.floor(centre - support), np.ceil(centre + support), source)
    weights = np.clip(1 - np.abs(place + 0.5 - centre[cells]) / support, 0, None)
    total = np.bincount(cells, weights, count)
    return _sparse(cells, place, (weights / total[cells]).astype(np.float32), count)


def _cells(low: np.ndarray, high: np.ndarray, source: int) -> tuple[np.ndarray, np.ndarray]:
    """(output cell, source cell) of each pair that may overlap: cell i overlaps `low[i]` to `high[i]`, exclusive."""
    low, high = low.clip(0, source - 1).astype(np.int64), high.clip(1, source).astype(np.int64)
    counts = np.maximum(high - low, 1)
    cells = np.repeat(np.arange(len(low)), counts)
    return cells, np.repeat(low, counts) + np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def _sparse(cells: np.ndarray, place: np.ndarray, weights: np.ndarray, count: int) -> Weights:
    kept = weights > 0
    cells, place, weights = cells[kept], place[kept], weights[kept]
    first, end = int(place.min()), int(place.max()) + 1
    pointers = np.concatenate([[0], np.cumsum(np.bincount(cells, minlength=count))])
    return csr_matrix((weights, place - first, pointers), shape=(count, end - first)), first, end
