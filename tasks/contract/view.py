"""How a trained model is evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

Grid = tuple[int, int]


def frozen(value: Any) -> Any:
    """Lists become tuples and mappings pairs, so that a view can be a key.  Example: `frozen([1, [2]]) == (1, (2,))`"""
    if isinstance(value, dict):
        return tuple((k, frozen(v)) for k, v in sorted(value.items()))
    return tuple(map(frozen, value)) if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class View:
    """How a trained model is evaluated: the grid, what the backbone is bound to, and the task's own options.

    The engine binds it: `Task.viewing(model, view)`. A field that is added here (image size, token merging) is one more
    thing that the backbone is bound to, and no adapter changes.

    Args:
        grid: tokens per side (h, w); an integer means square.
        resize: method that resizes patch kernels; None: the backbone's own.
        options: pairs (name, value) of the task's options of evaluation.

    Example: `View(8, options={"neighbours": 5})`
    """

    grid: Grid
    resize: str | None = None
    options: tuple[tuple[str, Any], ...] = ()

    if TYPE_CHECKING:  # what may be given; the fields hold one form of it

        def __init__(
            self,
            grid: Grid | int,
            resize: str | None = None,
            options: Mapping[str, Any] | tuple[tuple[str, Any], ...] = (),
        ) -> None: ...

    def __post_init__(self) -> None:
        if isinstance(self.grid, int):
            object.__setattr__(self, "grid", (self.grid, self.grid))
        pairs = self.options.items() if isinstance(self.options, Mapping) else self.options
        object.__setattr__(self, "options", tuple(sorted((k, frozen(v)) for k, v in pairs)))

    @property
    def bindings(self) -> dict[str, Any]:
        """What the backbone is bound to for the length of a pass; fields that leave it as it is are not among them."""
        named = ((f.name, getattr(self, f.name)) for f in fields(self) if f.name not in ("grid", "options"))
        return {name: value for name, value in named if value is not None}

    def __str__(self) -> str:
        """`8x8`, with the resize method and options where they are not the usual."""
        bound = [v for v in self.bindings.values() if v != "pi"]
        more = [*map(str, bound), *(f"{k}={v}" for k, v in self.options)]
        return f"{self.grid[0]}x{self.grid[1]}" + (f" ({', '.join(more)})" if more else "")
