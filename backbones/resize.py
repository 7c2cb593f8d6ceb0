"""Resizing patch kernels and position embeddings: pure functions of tensors.

Everything starts from the stored base kernel and base positions, never from an already resized one: resizing twice
loses information (32 -> 8 -> 32 is not the identity).
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from backbones.grids import FILTERS, METHODS, Size, as_pair


def _resize_plain(image: Tensor, size: tuple[int, int], filter: str) -> Tensor:
    """`[N, C, h, w] -> [N, C, *size]`. Bilinear is never antialiased (official); bicubic always (timm's default)."""
    return F.interpolate(image, size=size, mode=filter, align_corners=False, antialias=filter == "bicubic")


def _full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Autocast off; the meta device knows none."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


@functools.lru_cache(maxsize=1024)
def interpolation_matrix(old: int, new: int, filter: str = "bilinear") -> Tensor:
    """One axis of the image resize as a float64 matrix B `[new, old]`: `resized = B @ signal`."""
    # four equal columns, one kept: torch's antialiased bicubic is wrong on pictures one pixel wide
    basis = torch.eye(old, dtype=torch.float64, device="cpu")[:, None, :, None].expand(-1, -1, -1, 4).contiguous()
    return _resize_plain(basis, (new, 4), filter)[:, 0, :, 0].T.contiguous()


@torch.compiler.assume_constant_result  # a compiled step holds it, and does not invert anew in each call
def pseudo_inverse(
    old: int, new: int, filter: str = "bilinear", dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
) -> Tensor:
    """`pinv(B^T)` of one axis, `[new, old]`, computed in float64; kept where it was needed, so that it travels once.

    The two-dimensional resize is a Kronecker product of its axes and so is its pseudo-inverse; working by axis is exact
    also where one axis grows and the other shrinks, a case in which the official float32 SVD breaks down.
    """
    return _pseudo_inverse(old, new, filter, dtype, torch.device(device))


@functools.lru_cache(maxsize=1024)
def _pseudo_inverse(old: int, new: int, filter: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.linalg.pinv(interpolation_matrix(old, new, filter).T).to(device, dtype)


def resize_patch_kernel(kernel: Tensor, patch: Size, method: str = "pi", filter: str = "bilinear") -> Tensor:
    """Resize a patch-embedding kernel.

    Args:
        kernel: `[D, C, h, w]`, the base kernel.
        patch: patch size in pixels, int or (h, w).
        method: `pi`, argmin_v ||B^T v - kernel|| with B the image resize, so that tokens of an upsampled image do not
            change (FlexiViT section 3.4; big_vision `resample_patchemb`); `bilinear`, the kernel resized as a picture;
            `area`, that times old patch area / new patch area; `norm`, the kernel of `bilinear` (the backbone scales
            the tokens afterwards).
        filter: `bilinear` (official), or `bicubic` with antialias as timm's `resample_patch_embed` has by default.

    Returns: `[D, C, ph, pw]` in the kernel's dtype, differentiable; computed in float32 at least, also under autocast.

    Raises: ValueError for an unknown method or filter.

    Example: `resize_patch_kernel(torch.randn(768, 3, 32, 32), 16).shape == (768, 3, 16, 16)`
    """
    if method not in METHODS:
        raise ValueError(f"no resize method {method!r}; there are: {', '.join(METHODS)}")
    if filter not in FILTERS:
        raise ValueError(f"no resize filter {filter!r}; there are: {', '.join(FILTERS)}")
    size, old = as_pair(patch), (kernel.shape[-2], kernel.shape[-1])
    if size == old:
        return kernel
    with _full_precision(kernel.device):
        work = kernel if kernel.dtype == torch.float64 else kernel.float()
        if method == "pi":
            vertical = pseudo_inverse(old[0], size[0], filter, work.dtype, work.device)
            horizontal = pseudo_inverse(old[1], size[1], filter, work.dtype, work.device)
            resized = vertical @ work @ horizontal.T
        else:
            resized = _resize_plain(work, size, filter)
            if method == "area":
                resized = resized * (old[0] * old[1] / (size[0] * size[1]))
        return resized.to(kernel.dtype)


def resize_position_embedding(position: Tensor, grid: Size, filter: str = "bilinear") -> Tensor:
    """Resize position embeddings `[h, w, D] -> [gh, gw, D]` with antialias (`jax.image.resize(..., "linear")`).

    Example: `resize_position_embedding(torch.randn(7, 7, 768), 15).shape == (15, 15, 768)`
    """
    size = as_pair(grid)
    if size == tuple(position.shape[:2]):
        return position
    with _full_precision(position.device):
        work = position if position.dtype == torch.float64 else position.float()
        planes = work.permute(2, 0, 1)[None]
        resized = F.interpolate(planes, size=size, mode=filter, align_corners=False, antialias=True)
        return resized[0].permute(1, 2, 0).to(position.dtype)
