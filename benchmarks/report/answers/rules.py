"""What a row says of its metric: unit, direction, chance, and how much worse a replacement may be."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from benchmarks.report.answers.points import Point
from benchmarks.report.statistics.noninferiority import Rules
from benchmarks.report.statistics.sentences import Wording
from benchmarks.store import Row
from tasks.contract import Metric


def rules_of(row: Row, margin: float | None = None) -> Rules:
    """The rules of a row's metric.

    Args:
        margin: as it is shown (points for per cent), instead of the metric's own.

    Raises: ValueError for a margin below 0.

    Example: `rules_of(row, margin=0.5).margin` is 0.005 for an accuracy
    """
    metric, fraction = Metric.of(row), Metric.of(row).unit == "%"
    return Rules(
        margin=metric.margin if margin is None else margin / (metric.scale or 1.0),
        chance=0.0 if metric.chance is None and fraction else metric.chance, higher=metric.higher_is_better,
        fraction=fraction,
    )  # fmt: skip


def wording_of(row: Row, points: Sequence[Point]) -> Wording:
    """Names for the sentences of a table with a row like this."""
    metric = Metric.of(row)
    scale = metric.scale or 1.0
    digits = digits_of([scale * p.quality for p in points], metric.digits or 0)
    named = Wording(metric.unit, scale, chance=metric.chance, digits=digits)
    measured = next((p.measured[0] for p in points if p.measured), None)
    if measured is None:
        return dataclasses.replace(named, samples=row.images or 0)
    clusters = measured.drawn if measured.units < measured.samples else ""
    return dataclasses.replace(
        named, samples=measured.samples, units=measured.units, clusters=clusters, drawn=measured.drawn
    )


def digits_of(values: Sequence[float], usual: int) -> int:
    """Decimals that show two digits of the largest value where all of a table are small; two more than usual at most.

    Example: `digits_of([0.012, 0.029], 1)` is 3; `digits_of([0.012, 54.3], 1)` is 1
    """
    largest = max(map(abs, values), default=0.0)
    if not 0 < largest < 1:
        return usual
    return min(max(usual, 1 - math.floor(math.log10(largest))), usual + 2)
