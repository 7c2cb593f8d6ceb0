"""Architectures of the published models and of the nano ones."""

from __future__ import annotations

from backbones.contract import VitShape

# buffers 32x32 and 7x7 as their authors state (big_vision issues 30 and 31); a file's own shapes win
SIZES = {
    "s": VitShape(384, 12, 6, 1536, (32, 32), (7, 7), True, "token", 1000),
    "b": VitShape(768, 12, 12, 3072, (32, 32), (7, 7), True, "token", 1000),
    "l": VitShape(1024, 24, 16, 4096, (32, 32), (7, 7), True, "token", 1000),
}


def parameters(shape: VitShape) -> int:
    """Numbers that a ViT of a shape holds.

    Example: `parameters(SIZES["b"])` is 88,223,464: four bytes each in a published file
    """
    width, mlp = shape.width, shape.mlp
    block = 4 * width + (4 * width + 4) * width + 2 * mlp * width + mlp + width  # norms, attention, MLP
    stem = 3 * shape.patch[0] * shape.patch[1] * width + width + shape.positions[0] * shape.positions[1] * width
    pooled = width if shape.class_token else 0
    return shape.depth * block + stem + pooled + 2 * width + shape.classes * (width + 1)


NANO = VitShape(128, 6, 4, 512, (32, 32), (7, 7), True, "token", 100)
