"""The patch embedding: a convolution whose stride is its size, which is a matrix product of cut-up pictures."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from backbones.grids import Grid


def by_convolution(images: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """`[B, 3, H, W]` and a kernel `[D, 3, h, w]` to tokens `[B, (H/h)*(W/w), D]`, row by row."""
    return F.conv2d(images, kernel, bias, stride=kernel.shape[-2:]).flatten(2).transpose(1, 2)


def by_product(images: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """As `by_convolution`: each patch laid out as a row, times the kernel as a matrix.

    cuDNN has no fast kernel for three channels and strides such as these; the order of the sums differs.
    """
    batch, channels, height, width = images.shape
    patch: Grid = (kernel.shape[-2], kernel.shape[-1])
    grid = height // patch[0], width // patch[1]
    cut = images.reshape(batch, channels, grid[0], patch[0], grid[1], patch[1]).permute(0, 2, 4, 1, 3, 5)
    return F.linear(cut.reshape(batch, grid[0] * grid[1], -1), kernel.flatten(1), bias)


def embed_patches(images: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """The faster of the two on the device where the pictures lie.

    Example: `embed_patches(torch.randn(2, 3, 120, 120), torch.randn(128, 3, 15, 15), None).shape  # [2, 64, 128]`
    """
    return (by_product if images.is_cuda else by_convolution)(images, kernel, bias)
