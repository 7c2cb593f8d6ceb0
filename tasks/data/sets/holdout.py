"""The one rule by which pictures of train are held out as `minival`: it needs no list, and no seed matters."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def held_out(names: Sequence[str], share: float, most: int | None = None) -> np.ndarray:
    """bool [N]: those whose names have the smallest SHA-256, `share` of them, one at least and `most` at most.

    Of a single picture, and at share 0, nothing is held out.

    Example: `held_out(["a", "b", "c"], 0.34).sum() == 1`
    """
    aside = np.zeros(len(names), bool)
    if len(names) < 2 or not share:
        return aside
    count = max(1, round(len(names) * share))
    hashes = np.array([int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big") for name in names])
    aside[np.argsort(hashes, kind="stable")[: count if most is None else min(count, most)]] = True
    return aside
