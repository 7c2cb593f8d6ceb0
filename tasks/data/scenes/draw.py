"""Pictures of coloured shapes with thin strokes and small parts, so that a finer grid has something to see."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SIDE = 120  # pixels of a scene, square
FINE = 4  # drawn so many times larger and averaged down: edges and masks agree to a fraction of a pixel
SHAPES = ("cross", "disc", "frame", "ring", "square", "triangle")
COLOURS = {
    "red": (205, 45, 45),
    "green": (50, 150, 60),
    "blue": (55, 85, 205),
    "yellow": (225, 205, 60),
    "purple": (140, 60, 165),
    "white": (235, 235, 235),
}


@dataclass(frozen=True)
class Thing:
    """One shape: `box` is x, y, width, height in pixels of what can be seen, `mask` bool [120, 120]."""

    shape: str
    colour: str
    box: tuple[float, float, float, float]
    mask: np.ndarray

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """`image` uint8 [120, 120, 3] and what is on it, things further back first."""

    image: np.ndarray
    things: list[Thing]


def _stencil(shape: str, x: float, y: float, radius: float, turn: float) -> np.ndarray:
    """Coverage 0 to 1 of each pixel [120, 120]."""
    left, top, width = int(x - 1.3 * radius), int(y - 1.3 * radius), int(2.6 * radius) + 2
    canvas = Image.new("L", (width * FINE, width * FINE))
    pen = ImageDraw.Draw(canvas)
    x, y, r = (x - left) * FINE, (y - top) * FINE, radius * FINE
    stroke = max(2 * FINE, int(0.28 * r))

    def corners(count: int, start: float, radius: float) -> list[tuple[float, float]]:
        angles = [turn + start + 2 * math.pi * i / count for i in range(count)]
        return [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles]

    if shape == "disc":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=255)
    elif shape == "ring":
        pen.ellipse((x - r, y - r, x + r, y + r), outline=255, width=stroke)
    elif shape == "triangle":
        pen.polygon(corners(3, -math.pi / 2, r * 1.15), fill=255)
    elif shape == "cross":
        ends = corners(4, 0.0, r * 1.1)
        for a, b in (ends[::2], ends[1::2]):
            pen.line((*a, *b), fill=255, width=stroke)
    else:
        pen.polygon(corners(4, math.pi / 4, r * 1.2), fill=255)
        if shape == "frame":
            pen.polygon(corners(4, math.pi / 4, r * 1.2 - stroke * 1.3), fill=0)
    small = np.asarray(canvas.resize((width, width), Image.Resampling.BOX), np.float64) / 255
    whole = np.zeros((SIDE, SIDE))
    whole[top : top + width, left : left + width] = small[: SIDE - top, : SIDE - left]
    return whole


def _ground(rng: np.random.Generator) -> np.ndarray:
    """A grey slope with a weave of faint lines: something that is not the answer."""
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float64) / SIDE
    angle, period = rng.uniform(0, math.pi, 2), rng.uniform(0.05, 0.2)
    slope = math.cos(angle[0]) * rows + math.sin(angle[0]) * columns
    weave = np.sin(2 * math.pi * (math.cos(angle[1]) * rows + math.sin(angle[1]) * columns) / period)
    grey = rng.uniform(60, 140) + 35 * slope + 8 * weave
    return np.repeat(grey[..., None], 3, axis=2)


def _paint(picture: np.ndarray, cover: np.ndarray, colour: str, rng: np.random.Generator) -> np.ndarray:
    ink = np.asarray(COLOURS[colour]) + rng.uniform(-18, 18, 3)
    return picture * (1 - cover[..., None]) + ink * cover[..., None]


def _place(rng: np.random.Generator, radius: tuple[float, float], taken: list[tuple[float, float, float]]) -> bool:
    """Add a circle that touches no other to `taken`; False where no place was found in forty tries."""
    for _ in range(40):
        r = rng.uniform(*radius)
        x, y = rng.uniform(1.3 * r, SIDE - 1.3 * r, 2)
        if all(math.hypot(x - a, y - b) > 1.2 * (r + c) for a, b, c in taken):
            taken.append((x, y, r))
            return True
    return False


def draw_scene(rng: np.random.Generator, names: Sequence[tuple[str, str]]) -> Scene:
    """A scene of the given (colour, shape) things, as many as fit, at random places and sizes of 18 to 50 px.

    Raises: KeyError for a colour that is not in `COLOURS`.

    Example: `draw_scene(np.random.default_rng(0), [("red", "ring"), ("blue", "disc")]).things[0].name`
    """
    picture = _ground(rng)
    things: list[Thing] = []
    taken: list[tuple[float, float, float]] = []
    for colour, shape in names:
        if not _place(rng, (9, 21), taken):
            break
        x, y, radius = taken[-1]
        cover = _stencil(shape, x, y, radius, rng.uniform(-0.35, 0.35))
        picture, mask = _paint(picture, cover, colour, rng), cover > 0.5
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        left, top = float(columns[0]), float(rows[0])
        box = (left, top, float(columns[-1]) + 1 - left, float(rows[-1]) + 1 - top)
        things.append(Thing(shape, colour, box, mask))
    return Scene(_finished(picture, rng), things)


def draw_swarm(rng: np.random.Generator, shape: str) -> np.ndarray:
    """uint8 [120, 120, 3]: many small things of one shape in any colours, 12 to 22 px each.

    Example: `Image.fromarray(draw_swarm(np.random.default_rng(3), "ring"))`
    """
    picture = _ground(rng)
    taken: list[tuple[float, float, float]] = []
    for _ in range(int(rng.integers(8, 14))):
        if _place(rng, (6, 11), taken):
            x, y, radius = taken[-1]
            cover = _stencil(shape, x, y, radius, rng.uniform(0, 2 * math.pi))
            picture = _paint(picture, cover, str(rng.choice(list(COLOURS))), rng)
    return _finished(picture, rng)


def _finished(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    noisy = picture + rng.normal(0, 6, picture.shape)
    return noisy.clip(0, 255).astype(np.uint8)
