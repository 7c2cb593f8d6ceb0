"""Shared by tests that need some pictures on disk and no more."""

from pathlib import Path

import numpy as np
from PIL import Image


def small_pictures(root: Path, name: str = "small/set", count: int = 12, side: int = 32) -> Path:
    """A set of noise with a folder a class, train and test; gives `root` back."""
    drawn = np.random.default_rng(0)
    for split in ("train", "test"):
        for i in range(count):
            folder = root / name / split / "abc"[i % 3]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(drawn.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return root
