"""Pictures for the report: a query and its first five images at several grids."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from tasks.contract import View

THUMB, GAP, MARGIN = 72, 4, 56  # pixels
RIGHT, WRONG = "#2e9e4f", "#b9b9b9"


def queries_shown(count: int, shown: int = 3) -> list[int]:
    """Places of a few queries, spread over the split."""
    return sorted({i * count // shown for i in range(min(shown, count))})


def strip(
    rows: Mapping[str, Sequence[int]],
    image: Callable[[int], Tensor],
    right: Callable[[int], bool],
    query: int | None = None,
) -> Image.Image:
    """A row of thumbnails for each caption of `rows`; a green frame means right, grey means wrong.

    Args:
        rows: caption -> ids of the images found, best first; -1 is an empty place.
        image: id -> uint8 [3, H, W]. right: is this id an answer?
        query: id of a picture that was asked with, drawn first in each row.

    Example: `strip({"4x4": [3, 9], "8x8": [9, 3]}, dataset.image, lambda i: i == 9)`
    """
    columns = max(len(ids) for ids in rows.values()) + (query is not None)
    cell = THUMB + GAP
    sheet = Image.new("RGB", (MARGIN + columns * cell + GAP, len(rows) * cell + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for line, (caption, ids) in enumerate(rows.items()):
        top = GAP + line * cell
        pen.text((4, top + THUMB // 2 - 6), caption, fill="black")
        places = ([(query, "#000000")] if query is not None else []) + [(i, RIGHT if right(i) else WRONG) for i in ids]
        for column, (i, frame) in enumerate(places):
            if i < 0:
                continue
            left = MARGIN + column * cell
            pixels = np.ascontiguousarray(image(i).permute(1, 2, 0).numpy())
            inner = Image.fromarray(pixels).resize((THUMB - 6, THUMB - 6), Image.Resampling.BILINEAR)
            pen.rectangle((left, top, left + THUMB - 1, top + THUMB - 1), fill=frame)
            sheet.paste(inner, (left + 3, top + 3))
    return sheet


def found_at(samples: Mapping[View, Mapping[str, Any]], name: str, place: int) -> dict[str, list[int]]:
    """`{grid: ids of the first five}` of the query at `place`."""
    return {f"{v.grid[0]}x{v.grid[1]}": [int(i) for i in kept[name][place]] for v, kept in samples.items()}
