"""Multiply-adds of a backbone at a grid: by formula where it is a ViT, else counted by torch's own counter."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from backbones.contract import VitShape
from backbones.grids import Grid, Size, as_pair

if TYPE_CHECKING:  # a plan tells costs of architectures without torch
    from torch import nn


def macs(encoder: Any, grid: Size, image_size: Size | None = None) -> int:
    """Multiply-adds of one image at a grid: matrices, attention and patches, without the kernel's resize.

    Works on a backbone built on the `meta` device too. A ViT is told by formula; of any other module the operators of
    one forward pass are counted by `torch.utils.flop_counter`.

    Raises: ValueError for a grid that does not divide; whatever the module raises in its forward pass.

    Example: `macs(build_backbone("flexivit_nano"), 15)`
    """
    side, grid = as_pair(image_size or encoder.image_size), as_pair(grid)
    if not hasattr(encoder, "trunk"):
        return counted_macs(encoder, grid, side)
    from torch import nn

    trunk = encoder.trunk
    matrices = sum(m.weight.numel() for m in trunk.blocks.modules() if isinstance(m, nn.Linear))
    tokens = grid[0] * grid[1] + trunk.num_prefix_tokens
    channels = encoder.base_kernel.shape[1]
    return _vit_macs(tokens, matrices, trunk.embed_dim, len(trunk.blocks), side, channels)


def counted_macs(encoder: Any, grid: Size, image_size: Size | None = None) -> int:
    """Half the floating-point operations that `torch.utils.flop_counter` sees in a forward pass of one image.

    Runs on a copy on the `meta` device, which computes nothing, or really where the module reads values.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    side = as_pair(image_size or encoder.image_size)
    channels = len(encoder.normalisation.mean) if hasattr(encoder, "normalisation") else 3

    def count(module: nn.Module, device: torch.device | str) -> int:
        images = torch.zeros(1, channels, *side, dtype=getattr(module, "dtype", torch.float32), device=device)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module(images, as_pair(grid))
        return counter.get_total_flops() // 2

    training = encoder.training
    try:
        return count(copy.deepcopy(encoder).to("meta").eval(), "meta")
    except (RuntimeError, NotImplementedError):
        some = next(encoder.parameters(), torch.empty(0))
        try:
            return count(encoder.eval(), some.device)
        finally:
            encoder.train(training)


def shape_macs(shape: VitShape, grid: Size, image_size: Size, channels: int = 3) -> int:
    """`macs` of an architecture that is not built.

    Example: `shape_macs(backbone_spec("flexivit_l_i1k").shape, (15, 15), (240, 240))`
    """
    height, width = as_pair(grid)
    matrices = shape.depth * (4 * shape.width**2 + 2 * shape.width * shape.mlp)
    tokens = height * width + (shape.pool == "token")
    return _vit_macs(tokens, matrices, shape.width, shape.depth, as_pair(image_size), channels)


def _vit_macs(tokens: int, matrices: int, width: int, depth: int, side: Grid, channels: int) -> int:
    attention = 2 * tokens * width * depth
    return int(tokens * (matrices + attention) + channels * width * side[0] * side[1])
