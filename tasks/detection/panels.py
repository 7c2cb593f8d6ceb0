"""Pictures for the report: what is found in an image at several grids, and what is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw
from torch import Tensor

from tasks.contract import View
from tasks.detection.finder import Found, draw

SHOWN = 4  # boxes drawn of each view: more hide the picture
WIDTH, CAPTION = 300, 16  # pixels


def side_by_side(image: Tensor, found: Mapping[str, list[Found]]) -> Image.Image:
    """The image (uint8 [3, H, W]) once for each caption, with its boxes, 300 px wide.

    Example: `side_by_side(image, {"truth": there, "grid 15x15": found})`
    """
    height, width = image.shape[1:]
    scale = WIDTH / width
    large = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((WIDTH, round(height * scale)))
    sheet = Image.new("RGB", (len(found) * (WIDTH + 4), large.height + CAPTION), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (caption, boxes) in enumerate(found.items()):
        scaled = [Found(f.label, f.score, tuple(v * scale for v in f.box)) for f in boxes]
        pen.text((i * (WIDTH + 4) + 2, 1), caption, fill="black")
        sheet.paste(draw(large, scaled), (i * (WIDTH + 4), CAPTION))
    return sheet


def best_found(kept: Mapping[str, Any], place: int, names: Sequence[str], shown: int = SHOWN) -> list[Found]:
    """The best boxes of one image out of a view's records."""
    score, category, box = (kept[k][place] for k in ("score", "category", "box"))
    best = score.argsort(descending=True, stable=True)[:shown]
    return [Found(names[int(category[i])], float(score[i]), tuple(box[i].tolist())) for i in best]


def grid_caption(view: View) -> str:
    return f"grid {view.grid[0]}x{view.grid[1]}"
