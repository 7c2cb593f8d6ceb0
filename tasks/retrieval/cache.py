"""Embeddings of a locked tower, computed once for each grid and kept on disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tasks.task import Grid, TaskError


def cache_key(weights: str, grid: Grid, data: str, preprocessing: Any) -> str:
    """24 hex digits of everything an embedding depends on.

    Args: weights, data: hashes, as of `backbone.weights_hash()` and `task.fingerprint()`. preprocessing: anything JSON
    can write (image size, resize method, precision).
    """
    content = json.dumps([weights, list(grid), data, preprocessing], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:24]


@torch.no_grad()
def embed(
    encode: Callable[[Tensor], Tensor], images: Callable[[int], Tensor], count: int, batch: int, device: Any = "cpu"
) -> Tensor:
    """[count, D] on the CPU: `encode` over `images(0)`, ... uint8 [3, H, W] in batches."""
    parts = []
    for start in range(0, count, batch):
        stacked = torch.stack([images(i) for i in range(start, min(start + batch, count))])
        parts.append(encode(stacked.to(device)).float().cpu())
    return torch.cat(parts)


def cached_embeddings(
    backbone: nn.Module,
    images: Callable[[int], Tensor],
    count: int,
    grid: Grid,
    folder: str | Path,
    identity: Sequence[Any],
    batch: int = 64,
    device: Any = "cpu",
) -> Tensor:
    """`pooled` of all images at a grid, from `folder` where it lies there, else computed and written.

    Only for a locked tower and images without augmentation. The tower is put into eval mode.

    Args:
        images: index -> uint8 [3, H, W]. identity: (weights hash, data fingerprint, preprocessing).

    Returns: float32 [count, D]; `batch.features = table[batch.ids]` spares the image forward.
    Raises: TaskError for a file that is broken or of another length.

    Example: `cached_embeddings(backbone, dataset.image, len(dataset), (8, 8), "cache", (hash, fingerprint, 120))`
    """
    weights, data, preprocessing = identity
    path = Path(folder) / f"{cache_key(weights, grid, data, preprocessing)}.pt"
    if path.exists():
        try:
            table = torch.load(path, weights_only=True)
        except Exception as error:
            raise TaskError(f"{path} is broken, delete it: {error}") from error
        if len(table) != count:
            raise TaskError(f"{path} holds {len(table)} embeddings for {count} images, delete it")
        return table
    backbone.eval()
    table = embed(lambda x: backbone(x, grid).pooled, images, count, batch, device)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")  # a killed process leaves no half-written table
    torch.save(table, partial)
    partial.replace(path)
    return table
