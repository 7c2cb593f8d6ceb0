"""What a task is, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TaskCard:
    """What a task is, as data. `protocol` is part of every row's identity: raise it when a number may move.

    Example: `TaskCard("depth", "v1", metric="rmse", higher_is_better=False, image_size=480, splits={"test": 654})`
    """

    name: str
    protocol: str
    metric: str
    higher_is_better: bool = True
    image_size: int = 240
    splits: Mapping[str, int | None] = field(default_factory=dict)  # images a split must have; None: not fixed
    sources: Mapping[str, str] = field(default_factory=dict)  # where each missing part is to be had
    citation: str = ""
    licence: str = ""
