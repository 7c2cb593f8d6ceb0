"""How a trained model is evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Grid = tuple[int, int]


@dataclass(frozen=True)
class View:
    """How a trained model is evaluated: the grid, the resize method of kernels, and the task's own options."""

    grid: Grid
    resize: str = "pi"
    options: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.grid, int):
            object.__setattr__(self, "grid", (self.grid, self.grid))
