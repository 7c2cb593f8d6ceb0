"""Draws a small set of pictures in class folders, for the tutorial: coloured shapes on noise."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

SHAPES = ("circle", "square", "triangle", "cross")
COUNTS = {"train": 60, "test": 40}  # pictures a class
SIDE = 128


def draw(shape: str, chance: random.Random) -> Image.Image:
    """One shape of random place, size and colour."""
    image = Image.effect_noise((SIDE, SIDE), chance.uniform(20, 60)).convert("RGB")
    pen = ImageDraw.Draw(image)
    radius = chance.randint(14, 40)
    x, y = (chance.randint(radius, SIDE - radius) for _ in range(2))
    colour = tuple(chance.randint(0, 255) for _ in range(3))
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        pen.ellipse(box, fill=colour)
    elif shape == "square":
        pen.rectangle(box, fill=colour)
    elif shape == "triangle":
        pen.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=colour)
    else:
        pen.line([(x - radius, y), (x + radius, y)], fill=colour, width=radius // 2)
        pen.line([(x, y - radius), (x, y + radius)], fill=colour, width=radius // 2)
    return image


def main() -> None:
    folder, chance = Path(sys.argv[1]), random.Random(0)
    for split, count in COUNTS.items():
        for shape in SHAPES:
            (folder / split / shape).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                draw(shape, chance).save(folder / split / shape / f"{i:03}.png")


if __name__ == "__main__":
    main()
