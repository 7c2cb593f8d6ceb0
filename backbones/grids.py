"""Grid arithmetic, and the grid of each training step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Grid = tuple[int, int]
Size = int | tuple[int, int]

PAPER_GRIDS = (5, 6, 8, 10, 12, 15, 16, 20, 24, 30)  # at 240 px: patches 48 40 30 24 20 16 15 12 10 8
NANO_GRIDS = (4, 5, 6, 8, 10, 12, 15)  # at 120 px: patches 30 24 20 15 12 10 8


METHODS = ("pi", "bilinear", "area", "norm")  # resizes of a patch kernel, see `resize_patch_kernel`
FILTERS = ("bilinear", "bicubic")


def as_pair(size: Size) -> tuple[int, int]:
    """`15 -> (15, 15)`; pairs pass. Raises ValueError for sizes below 1, and for what is neither."""
    if isinstance(size, int):
        pair = (size, size)
    elif isinstance(size, tuple | list) and len(size) == 2 and not isinstance(size[0], str):
        pair = (int(size[0]), int(size[1]))
        if pair[0] != size[0] or pair[1] != size[1]:
            raise ValueError(f"size {size!r} is not of whole numbers")
    else:
        raise ValueError(f"size {size!r} is neither a whole number nor a pair (height, width)")
    if min(pair) < 1:
        raise ValueError(f"size {size!r} must be at least 1 on each axis")
    return pair


def valid_grids(side: int, largest: int = 64) -> list[int]:
    """Grids that divide a side of `side` pixels, up to `largest` tokens."""
    return [g for g in range(1, min(side, largest) + 1) if side % g == 0]


def patch_size(image: Size, grid: Size) -> Grid:
    """Patch (h, w) in pixels.

    Raises: ValueError naming the valid grids where the grid does not divide the image (the official code would floor
    and drop border pixels).

    Example: `patch_size(240, 15) == (16, 16)`
    """
    image, grid = as_pair(image), as_pair(grid)
    for side, tokens, axis in zip(image, grid, ("height", "width"), strict=True):
        if side % tokens:
            valid = ", ".join(map(str, valid_grids(side)))
            raise ValueError(f"grid {tokens} does not divide the image {axis} of {side} px; grids that do: {valid}")
    return image[0] // grid[0], image[1] // grid[1]


def grid_from_patch(image: Size, patch: Size) -> Grid:
    """The grid of a patch size: `grid_from_patch(240, 16) == (15, 15)`. Raises ValueError where it does not divide."""
    image, patch = as_pair(image), as_pair(patch)
    for side, pixels in zip(image, patch, strict=True):
        if side % pixels:
            valid = ", ".join(str(side // g) for g in reversed(valid_grids(side)))
            raise ValueError(f"patch {pixels} does not divide the image side of {side} px; patches that do: {valid}")
    return image[0] // patch[0], image[1] // patch[1]


@dataclass(frozen=True)
class GridSchedule:
    """The grid of a training step, a pure function of (seed, step): equal on all processes and after a resume.

    kind `fixed`: the one grid. `random`: one draw a step, big_vision's `default_rng((0, seed, step)).choice(v, p=p)`;
    seed 0 is the official public sequence, steps count from 1. `curriculum`: coarse to fine; `shares` says which part
    of the steps (`by="step"`) or of the compute (`by="cost"`, tokens) each grid gets.

    Example: `GridSchedule("random", (5, 8, 15)).grid(step=1, total=100)`
    """

    kind: str = "fixed"
    grids: tuple[Grid, ...] = ((15, 15),)
    weights: tuple[float, ...] | None = None
    by: str = "step"
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "grids", tuple(as_pair(g) for g in self.grids))
        if self.kind not in ("fixed", "random", "curriculum"):
            raise ValueError(f"no grid schedule {self.kind!r}; there are: fixed, random, curriculum")
        if self.by not in ("step", "cost"):
            raise ValueError(f"a curriculum goes by 'step' or 'cost', not {self.by!r}")
        if not self.grids or (self.kind == "fixed" and len(self.grids) != 1):
            raise ValueError(f"a {self.kind} schedule cannot have {len(self.grids)} grids")
        if self.weights is not None:
            if len(self.weights) != len(self.grids):
                raise ValueError(f"{len(self.weights)} weights for {len(self.grids)} grids")
            if min(self.weights) < 0 or sum(self.weights) <= 0:
                raise ValueError(f"grid weights {self.weights} must be non-negative and not all zero")

    def grid(self, step: int, total: int) -> Grid:
        """Grid of step `step` (from 1) of `total`."""
        if self.kind == "fixed":
            return self.grids[0]
        share = np.asarray(self.weights or [1.0] * len(self.grids), dtype=np.float64)
        if self.kind == "random":
            rng = np.random.default_rng((0, max(self.seed, 0), max(step, 0)))
            return self.grids[int(rng.choice(len(self.grids), p=share / share.sum()))]
        order = sorted(range(len(self.grids)), key=lambda i: self.grids[i][0] * self.grids[i][1])
        share = share[order]
        if self.by == "cost":
            share = share / np.array([self.grids[i][0] * self.grids[i][1] for i in order])
        ends = np.cumsum(share / share.sum()) * total
        return self.grids[order[min(int(np.searchsorted(ends, step, side="left")), len(order) - 1)]]

    def shares(self) -> dict[Grid, float]:
        """The part of the steps that each grid gets, of a random schedule on average.

        Example: `parse_schedule("curriculum-cost:5,10").shares()  # {(5, 5): 0.8, (10, 10): 0.2}`
        """
        weights = self.weights or (1.0,) * len(self.grids)
        by_cost = self.kind == "curriculum" and self.by == "cost"
        parts = [w / (g[0] * g[1] if by_cost else 1) for w, g in zip(weights, self.grids, strict=True)]
        return {g: sum(p for p, h in zip(parts, self.grids, strict=True) if h == g) / sum(parts) for g in self.grids}

    def tokens(self, total: int) -> float:
        """Mean tokens per image over a run of `total` steps."""
        return float(np.mean([np.prod(self.grid(s, total)) for s in range(1, total + 1)]))


def parse_schedule(text: str | int | Sequence[int], seed: int = 0) -> GridSchedule:
    """Read `15`, `"15"`, `"8x10"`, `"random:5,8,15"`, `"curriculum:4,8,15"` or `"curriculum-cost:4,8,15"`.

    Raises: ValueError quoting what could not be read.
    """
    if isinstance(text, int):
        return GridSchedule("fixed", ((text, text),), seed=seed)
    if not isinstance(text, str):
        return GridSchedule("fixed", (as_pair(tuple(text)),), seed=seed)
    kind, _, listed = text.rpartition(":")
    kind, by = ("curriculum", "cost") if kind == "curriculum-cost" else (kind or "fixed", "step")
    try:
        if not text.isascii():  # other scripts' digits are digits to `int`
            raise ValueError
        sides = [[int(n) for n in grid.split("x")] for grid in listed.split(",")]
        grids = tuple(as_pair(own[0] if len(own) == 1 else tuple(own)) for own in sides)
    except ValueError:
        raise ValueError(
            f"cannot read grid schedule {text!r}; write 15, 8x10, random:5,8,15 or curriculum:4,8,15"
        ) from None
    return GridSchedule(kind, grids, by=by, seed=seed)
