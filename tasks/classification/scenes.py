"""Drawn pictures for the demo: six patterns in random colours, as an ImageFolder like any other."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

from tasks.task import TaskError

PATTERNS = ("checks", "dots", "horizontal", "plain", "rings", "vertical")
SIDE = 96
COUNTS = {"train": 80, "test": 20}  # pictures a class
VERSION = 1  # raise it when a pixel may change; the folder is named by it


def draw(pattern: str, seed: int) -> np.ndarray:
    """uint8 [96, 96, 3]: one pattern of random place, period and colours, with noise.

    Example: `Image.fromarray(draw("rings", seed=3))`
    """
    rng = np.random.default_rng((VERSION, PATTERNS.index(pattern), seed))
    ground, colour = rng.integers(0, 256, 3), rng.integers(0, 256, 3)
    while np.abs(ground - colour).sum() < 200:  # what cannot be seen cannot be learnt
        colour = rng.integers(0, 256, 3)
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    period, (top, left) = rng.uniform(8, 20), rng.uniform(0, SIDE, 2)
    y, x = (rows - top) / period, (columns - left) / period
    inside = {
        "checks": (np.floor(y) + np.floor(x)) % 2 == 0,
        "dots": np.hypot(y % 1 - 0.5, x % 1 - 0.5) < 0.3,
        "horizontal": y % 1 < 0.5,
        "plain": np.zeros((SIDE, SIDE), bool),
        "rings": np.hypot(y, x) % 1 < 0.5,
        "vertical": x % 1 < 0.5,
    }[pattern]
    picture = np.where(inside[..., None], colour, ground) + rng.normal(0, 12, (SIDE, SIDE, 3))
    return picture.clip(0, 255).astype(np.uint8)


def scenes_folder(root: Path) -> Path:
    """The folder of the drawn pictures under the data root; drawn on the first call, whole or not at all.

    Raises: TaskError where the data root cannot be written to.
    """
    from PIL import Image

    folder = root / "demo" / f"scenes_v{VERSION}"
    if folder.is_dir():
        return folder
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        for number, (split, count) in enumerate(COUNTS.items()):
            for pattern in PATTERNS:
                (partial / split / pattern).mkdir(parents=True)
                for i in range(count):
                    Image.fromarray(draw(pattern, i + 10_000 * number)).save(partial / split / pattern / f"{i:03d}.png")
        partial.rename(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if folder.is_dir():  # another runner was faster
            return folder
        raise TaskError(
            f"the demo's pictures cannot be drawn into {folder}: {error}; choose another --data-root"
        ) from error
    return folder
