"""Pictures for the report: image, truth and the prediction at several grids, side by side."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from tasks.data.readers.label_maps import IGNORE

_CAPTION = 14  # pixels above each picture


def palette() -> np.ndarray:
    """Colours of the 256 label values, uint8 `[256, 3]`: Pascal VOC's colour map (far apart for near values).

    Ignored pixels (255) are white.
    """
    colours = np.zeros((256, 3), np.uint8)
    for value in range(256):
        bits = value
        for shift in range(7, -1, -1):
            for channel in range(3):
                colours[value, channel] |= ((bits >> channel) & 1) << shift
            bits >>= 3
    colours[IGNORE] = 255
    return colours


def coloured(label: Tensor) -> np.ndarray:
    """A label map `[H, W]` of integers as colours, uint8 `[H, W, 3]`."""
    return palette()[label.cpu().numpy().astype(np.uint8)]


def panel(image: Tensor, truth: Tensor, predictions: Mapping[str, Tensor]) -> Image.Image:
    """One row of captioned pictures: the image (uint8 `[3, H, W]`), the truth, and each prediction by its caption.

    Where the truth is ignored, predictions are shown all the same.

    Example: `panel(image, target["label"], {"grid 8": coarse, "grid 30": fine}).save("panel.png")`
    """
    height, width = truth.shape
    assert image.shape == (3, height, width) and all(p.shape == truth.shape for p in predictions.values())
    cells = {"image": image.permute(1, 2, 0).cpu().numpy(), "truth": coloured(truth)}
    cells.update({caption: coloured(prediction) for caption, prediction in predictions.items()})
    sheet = Image.new("RGB", (len(cells) * width, height + _CAPTION), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (caption, pixels) in enumerate(cells.items()):
        draw.text((i * width + 2, 1), caption, fill="black")
        sheet.paste(Image.fromarray(np.ascontiguousarray(pixels)), (i * width, _CAPTION))
    return sheet
