"""RandAugment as big_vision has it (`pp/autoaugment.py`): timm's operations at TensorFlow's strengths."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import AugmentOp
from torch import Tensor

NAMES = (
    "AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "Color", "Contrast", "Brightness",
    "Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY", "Cutout", "SolarizeAdd",
)  # fmt: skip
GREY = (128, 128, 128)  # where nothing is left after a shift, and in what is cut out
SHIFT, CUT = 100, 40  # pixels at magnitude 10: of a translation, and half the side of a cutout


def randaugment(image: Tensor, operations: int, magnitude: float, generator: torch.Generator) -> Tensor:
    """`operations` of sixteen, drawn with repeats, one after another at `magnitude` (0 to 10).

    uint8 [3, h, w] to the same, a function of `generator` alone. Unlike timm's policy every drawn operation is
    applied; shifts are in pixels; `Contrast` and `Cutout` are theirs, the others timm's by nearest neighbour.

    Example: `randaugment(picture, 2, 10, torch.Generator().manual_seed(0))`
    """
    drawn = torch.randint(len(NAMES), (operations,), generator=generator).tolist()
    seed = int(torch.randint(2**31, (), generator=generator))
    found = Image.fromarray(image.permute(1, 2, 0).numpy())
    before = random.getstate()  # timm draws the sign of an angle or a shift from Python's own generator
    random.seed(seed)
    try:
        for number in drawn:
            found = operation(NAMES[number], magnitude)(found)
    finally:
        random.setstate(before)
    return torch.from_numpy(np.array(found)).permute(2, 0, 1).contiguous()


def operation(name: str, magnitude: float) -> Callable[[Image.Image], Image.Image]:
    """One of `NAMES` at a magnitude.

    Example: `operation("Rotate", 10)(picture)  # by 30 degrees to either side`
    """
    if name == "Contrast":
        return lambda image: contrast(image, magnitude / 10 * 1.8 + 0.1)
    if name == "Cutout":
        return lambda image: cutout(image, int(magnitude / 10 * CUT))
    settings = {"translate_const": SHIFT, "img_mean": GREY, "interpolation": Image.Resampling.NEAREST}
    return AugmentOp(name, prob=1.0, magnitude=magnitude, hparams=settings)


def contrast(image: Image.Image, factor: float) -> Image.Image:
    """Away from a grey of pixels / 256, at most 255: what their "mean of the histogram" comes to (225 at 240 px)."""
    pixels = np.asarray(image, np.float32)
    grey = float(int(min(pixels.shape[0] * pixels.shape[1] / 256, 255)))
    return Image.fromarray((grey + factor * (pixels - grey)).clip(0, 255).astype(np.uint8))


def cutout(image: Image.Image, half: int) -> Image.Image:
    """A grey square of side 2 * half around a pixel of the picture, less what would lie outside."""
    x, y = random.randrange(image.width), random.randrange(image.height)
    found = image.copy()
    found.paste(GREY, (max(0, x - half), max(0, y - half), min(image.width, x + half), min(image.height, y + half)))
    return found
