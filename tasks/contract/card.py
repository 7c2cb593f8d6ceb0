"""What a task is, as data: its card, and the metrics it reports."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

POINT = 0.01  # the margin of a comparison of percentages where a card names no other: one point


@dataclass(frozen=True)
class Metric:
    """A number that a task reports: what it is called, how it is shown, which way is better.

    Rows hold it in its own unit: fractions 0-1 for percentages, metres for an error in metres. Only the display scales.

    Args:
        name: key in the metrics of a row.
        unit: shown behind the value; "%" for fractions, "" for a number without one.
        scale: factor of display; None: 100 for "%", else 1.
        higher_is_better: direction.
        chance: what guessing reaches, in the metric's own unit. None where it depends on the data: then the row's
            metrics may hold it as `chance_NAME`, and where they do not it is unknown.
        margin: how much worse still counts as a replacement, in the metric's own unit. None: one point for "%", else
            no absolute margin at all.
        digits: decimals of display; None: 1 for "%", else 2.

    Example::

        >>> Metric("rmse", unit="m", higher_is_better=False).show(4.567)
        '4.57 m'
        >>> Metric("top1").show(0.457)
        '45.7 %'
    """

    name: str
    unit: str = "%"
    scale: float | None = None
    higher_is_better: bool = True
    chance: float | None = None
    margin: float | None = None
    digits: int | None = None

    def __post_init__(self) -> None:
        percent = self.unit == "%"
        for name, usual in (("scale", 100.0 if percent else 1.0), ("digits", 1 if percent else 2)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, usual)
        if self.margin is None and percent:
            object.__setattr__(self, "margin", POINT)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Metric:
        """The metric that a row reports first, with the chance level of that row's data.

        Rows from before metrics had units are in percent.

        Example: `Metric.of(row).show(row["metrics"][row["metric"]])`
        """
        values = row.get("metrics") or {}
        name = row.get("metric") or next(iter(values), "")
        known = {f.name for f in dataclasses.fields(cls)}
        told = {k: v for k, v in (row.get("measure") or {}).items() if k in known}
        metric = cls(**{"name": name, "higher_is_better": row.get("higher_is_better", True), **told})
        chance = values.get(f"chance_{name}")
        return metric if chance is None else dataclasses.replace(metric, chance=chance)

    @property
    def label(self) -> str:
        """Name and unit, for axes and headings.  Example: `Metric("top1").label` is `top1 in %`"""
        return f"{self.name} in {self.unit}" if self.unit else self.name

    def scaled(self, value: float) -> float:
        """The number that is displayed."""
        return value * (self.scale or 1.0)

    def show(self, value: float | None, unit: bool = True, sign: bool = False) -> str:
        """The value as people read it; `-` where there is none.

        Example: `Metric("top1").show(-0.012, sign=True)` is `-1.2 %`
        """
        if value is None:
            return "-"
        text = f"{self.scaled(value):{'+' if sign else ''}.{self.digits}f}"
        return f"{text} {self.unit}" if unit and self.unit else text

    def show_difference(self, value: float) -> str:
        """A difference of two values: percentages differ by points.

        Example: `Metric("top1").show_difference(0.003)` is `+0.3 points`
        """
        if self.unit != "%":
            return self.show(value, sign=True)
        text = self.show(value, unit=False, sign=True)
        return f"{text} point{'' if float(text) in (1, -1) else 's'}"

    def best(self, values: Mapping[Any, float]) -> Any:
        """The key of the best value, the first of equal ones.

        Example: `Metric("AP").best({"a": 0.1, "b": 0.2})` is `b`
        """
        return (max if self.higher_is_better else min)(values, key=values.__getitem__)


@dataclass(frozen=True)
class TaskCard:
    """What a task is, as data. `protocol` is part of every row's identity: raise it when a number may move.

    Args:
        name: as in rows.
        protocol: version of recipe, evaluation and constants.
        metrics: the first one is reported; a name alone is a percentage of which more is better.
        image_size: side of the square that grids divide, in pixels.
        splits: pictures that each split must have; None: any number.
        sources: where each missing part is to be had.
        cluster: name of the per-sample value that says which samples belong together (frames of one drive, captions of
            one picture); empty: each sample is on its own.
        units: what such a cluster is called, or a sample where each is on its own; in the plural, for the page.

    Example::

        TaskCard("depth", "v1", Metric("rmse", "m", higher_is_better=False), image_size=480, splits={"test": 654})
    """

    name: str
    protocol: str
    metrics: tuple[Metric, ...]
    image_size: int = 240
    splits: Mapping[str, int | None] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    citation: str = ""
    licence: str = ""
    cluster: str = ""
    units: str = "pictures"

    def __post_init__(self) -> None:
        told = self.metrics
        several = (told,) if isinstance(told, str | Metric) else tuple(told)
        if not several:
            raise TypeError(f"card of {self.name!r}: it needs at least one metric")
        object.__setattr__(self, "metrics", tuple(Metric(m) if isinstance(m, str) else m for m in several))

    @property
    def metric(self) -> Metric:
        """The one that is reported first: tables, verdicts and choices on minival go by it."""
        return self.metrics[0]


@dataclass(frozen=True)
class TrainingWork:
    """What a plan counts of training: of each picture that a step sees, and once.

    Args:
        passes: forward passes of the image tower: 3 with its backward pass, 1 where it is locked, 0 where it is not
            looked through again.
        kept: training pictures that go through a locked tower once for each grid.
        text: multiply-adds of a picture's texts in a forward pass of a tower that is trained.

    Example: `TrainingWork(passes=0, kept=4000)`
    """

    passes: int = 3
    kept: int = 0
    text: int = 0
