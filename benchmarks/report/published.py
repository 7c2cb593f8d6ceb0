"""Numbers that others have published, beside measured ones of the same protocol; never instead of them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

from benchmarks.report.answers.points import Point
from tasks.contract import Metric

FOLDER = Path(__file__).parents[1] / "published"


class Published(BaseModel):
    """One number. `value` in the metric's own unit as printed (percent), None where it is not known.

    `status`: found (read in the source), secondary (told by a summary of the source), unknown. `protocol` is that of
    our rows where it matches exactly, else empty: then the number stands in its file and beside nothing.
    """

    model_config = ConfigDict(extra="forbid")

    task: str
    data: str
    split: str
    metric: str
    backbone: str
    value: float | None
    status: str
    source: str
    train_grid: str = ""
    eval_grid: str = ""
    protocol: str = ""
    note: str = ""


@functools.cache
def published(folder: Path = FOLDER) -> tuple[Published, ...]:
    """All entries of `benchmarks/published/*.yaml`.

    Raises: ValueError naming the file and the entry that is wrong.

    Example: `[p.value for p in published() if p.backbone == "flexivit_b_i1k"]`
    """
    found = []
    for path in sorted(folder.glob("*.yaml")):
        for number, entry in enumerate(yaml.safe_load(path.read_text(encoding="utf-8"))["numbers"], 1):
            try:
                one = Published.model_validate(entry)
            except ValueError as error:
                raise ValueError(f"{path.name}: entry {number}: {str(error).splitlines()[-2].strip()}") from None
            if one.status not in ("found", "secondary", "unknown") or (one.value is None) != (one.status == "unknown"):
                raise ValueError(f"{path.name}: entry {number}: status {one.status!r} with value {one.value}")
            found.append(one)
    return tuple(found)


def beside(choices: Sequence[Point], numbers: Sequence[Published] | None = None) -> list[str]:
    """A sentence for each published number that one of the rows repeats under the same protocol."""
    lines = []
    for one in published() if numbers is None else numbers:
        for point in choices:
            row = point.row
            own = (row["task"], str(row["options"].get("data", "")), row["split"], row.get("metric"), row["backbone"])
            if not one.protocol or own != (one.task, one.data, one.split, one.metric, one.backbone):
                continue
            grids = (point.train, point.grid, row["protocol"])
            if grids != (one.train_grid or "-", one.eval_grid, one.protocol):
                continue
            metric = Metric.of(row)
            here = f"{point.name}: {metric.show(point.quality)} here"
            if one.value is None:
                lines.append(f"{here}; published: unknown ({one.source}).")
                continue
            value = one.value / (metric.scale or 1.0)
            gap = metric.show_difference(point.quality - value)
            lines.append(f"{here}, {metric.show(value)} published ({one.status}, {one.source}): {gap}.")
    return lines
