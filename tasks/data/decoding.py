"""Pictures as tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tasks.data.pictures import read_reduced, read_rgb


def decode(content: Any, name: str = "picture", reduced: int = 0) -> Tensor:
    """uint8 RGB [3, h, w] of encoded bytes, a path, a PIL image or an array [h, w, 3]; pixels as stored.

    Args: reduced: a JPEG may come smaller, its shorter side at least this (`read_reduced`); 0: all of it.

    Raises: DataError naming a picture that cannot be decoded.

    Example: `decode(Path("a.jpg")).shape` is `(3, 375, 500)`
    """
    if isinstance(content, Image.Image):
        content = np.array(content.convert("RGB"))
    elif not isinstance(content, np.ndarray):
        content = read_reduced(content, reduced, name) if reduced else read_rgb(content, name)
    return torch.from_numpy(np.ascontiguousarray(content)).permute(2, 0, 1).contiguous()


def decode_square(content: Any, side: int, name: str = "picture") -> Tensor:
    """uint8 RGB [3, side, side], squeezed; bilinear with antialiasing. Nothing is cropped.

    Raises: as `decode`.

    Example: `decode_square(Path("a.jpg"), 120).shape` is `(3, 120, 120)`
    """
    return squeezed(Image.fromarray(read_rgb(content, name)), side)


def squeezed(image: Image.Image, side: int) -> Tensor:
    """uint8 [3, side, side] of an RGB image."""
    square = image.resize((side, side), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()
