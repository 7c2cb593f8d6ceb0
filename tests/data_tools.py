"""Shared by tests of data: cards of known sets with the sizes of tiny ones, and pictures of one colour."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tasks.data import cards


def sized(monkeypatch: Any, name: str, kind: str, counts: bool = False, **sizes: int | None) -> None:
    """Let the card of a known set have these pictures a split, `None` for any; and any number of classes."""
    card = cards.known_card(name)
    form = getattr(card, kind)
    splits = {
        split: own.model_copy(update={"pictures": sizes.get(split), "labels": None})
        for split, own in form.splits.items()
    }
    form = form.model_copy(update={"splits": splits, "class_count": form.class_count if counts else None})
    monkeypatch.setitem(cards._READ, name, card.model_copy(update={kind: form}))


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (8, 6), **options: Any) -> Path:
    """Write a picture of noise in the format of its suffix."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def small_pictures(root: Path, name: str = "small/set", count: int = 12, side: int = 32) -> Path:
    """A set of noise with a folder a class, train and test; gives `root` back."""
    for number in range(count):
        for split in ("train", "test"):
            picture(root / name / split / "abc"[number % 3] / f"{number}.png", number, (side, side))
    return root
