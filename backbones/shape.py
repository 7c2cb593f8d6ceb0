"""The architecture of a ViT as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class VitShape:
    """Architecture as read from the shapes of a checkpoint."""

    width: int
    depth: int
    heads: int
    mlp: int
    patch: tuple[int, int]
    positions: tuple[int, int]
    class_token: bool
    pool: str  # token | avg | map
    classes: int
    position_for_class: bool = False

    def __str__(self) -> str:
        return (
            f"width {self.width}, depth {self.depth}, {self.heads} heads, MLP {self.mlp}, kernel "
            f"{self.patch[0]}x{self.patch[1]}, positions {self.positions[0]}x{self.positions[1]}, pool {self.pool}, "
            f"{self.classes or 'no'} classes"
        )
