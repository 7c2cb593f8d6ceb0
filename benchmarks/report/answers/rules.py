"""What a row says of its metric: unit, direction, chance, and how much worse a replacement may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.report.answers.points import Point
from benchmarks.report.statistics.noninferiority import Rules
from benchmarks.report.statistics.sentences import Wording
from benchmarks.store import Row

POINT = 0.01  # the margin of percentages where a metric has no other


def unit_of(row: Row) -> tuple[str, float]:
    """Unit and scale of display of a row's metric; rows from before metrics had units are in per cent."""
    told: dict[str, Any] = dict(row.get("measure") or {})
    unit = str(told.get("unit", "%"))
    return unit, float(told.get("scale") or (100.0 if unit == "%" else 1.0))


def chance_of(row: Row) -> float | None:
    """What guessing reaches, of this row's data or of the metric; None where neither says."""
    own = row.metrics.get(f"chance_{row.metric}")
    return own if own is not None else dict(row.get("measure") or {}).get("chance")


def rules_of(row: Row, margin: float | None = None) -> Rules:
    """The rules of a row's metric.

    Args:
        margin: as it is shown (points for per cent), instead of the metric's own.

    Raises: ValueError for a margin below 0.

    Example: `rules_of(row, margin=0.5).margin` is 0.005 for an accuracy
    """
    unit, scale = unit_of(row)
    own = dict(row.get("measure") or {}).get("margin")
    usual = own if own is not None else POINT if unit == "%" else None
    chance = chance_of(row)
    return Rules(
        margin=usual if margin is None else margin / scale, chance=0.0 if chance is None and unit == "%" else chance,
        higher=row.higher_is_better is not False, fraction=unit == "%",
    )  # fmt: skip


def wording_of(row: Row, points: Sequence[Point]) -> Wording:
    """Names for the sentences of a table with a row like this."""
    unit, scale = unit_of(row)
    measured = next((p.measured[0] for p in points if p.measured), None)
    if measured is None:
        return Wording(unit, scale, row.images or 0, chance=chance_of(row))
    clustered = "clusters" if measured.units < measured.samples else ""
    return Wording(unit, scale, measured.samples, "pictures", measured.units, clustered, chance_of(row))
