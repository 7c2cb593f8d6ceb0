"""How often training shows one picture, four or nine."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.contract import TaskError
from tasks.protocols import protocol

SIZES = (1, 2, 3)  # tiles a side of a mosaic
SHARES = tuple(protocol("detection").value("mosaics"))


def check_mosaics(shares: Sequence[float], side: int) -> None:
    """Raises: TaskError for invalid shares, or a side that the tiles do not divide."""
    good = len(shares) == len(SIZES) and min(shares) >= 0 and abs(sum(shares) - 1) < 1e-6
    if not good:
        raise TaskError(f"mosaics {list(shares)} must be three shares (1x1, 2x2, 3x3) that sum to 1, as {list(SHARES)}")
    for size, share in zip(SIZES, shares, strict=True):
        if share and side % size:
            raise TaskError(f"side {side} px is not divisible into {size}x{size} tiles; set that share of mosaics to 0")
