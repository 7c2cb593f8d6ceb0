"""The one form of what `score` finds, whatever the task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Score:
    """Metrics of predictions that were made anywhere.

    Args:
        task: name of the task. protocol: by whose rules, such as `lvis` or `cosine`.
        metrics: by name, fractions 0-1 or in the metric's unit; None where the metric is not defined for this data.
        counts: how many of what was scored, and of what is unusual about it.
        notes: sentences for the user: what was assumed, and what makes the numbers doubtful.

    Example: `Score("detection", "coco", {"AP": 0.31}, {"images": 5000}).as_json()["metrics"]["AP"]`
    """

    task: str
    protocol: str
    metrics: Mapping[str, float | None]
    counts: Mapping[str, int]
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """`task`, `protocol`, `metrics`, `counts`; the notes are for eyes.

        Raises: ValueError for a metric that is not finite.
        """
        found = {
            "task": self.task, "protocol": self.protocol, "metrics": dict(self.metrics), "counts": dict(self.counts)
        }  # fmt: skip
        json.dumps(found, allow_nan=False)
        return found
