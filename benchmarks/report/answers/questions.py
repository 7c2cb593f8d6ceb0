"""Which rows stand together: one table is one question, and what its rows differ in is named."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.store import Row

Group = tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """A successful row in its place.

    Args:
        group: of its table: task, data and what its rows differ in, protocol, split, metric.
        backbone: as it is shown; with its options where it comes with several sets of them.
        train: grid or schedule of its training, "-" where nothing is trained.
        view: how it was evaluated apart from the grid, "" for the usual way.
    """

    row: Row
    group: Group
    backbone: str
    train: str
    grid: str
    view: str = ""

    @property
    def seed(self) -> int:
        return self.row.seed or 0

    @property
    def column(self) -> str:
        """`8`, or `8 bilinear`."""
        return f"{self.grid} {self.view}".strip()


def newest(rows: Sequence[Row]) -> list[Row]:
    """Successful rows, the newest of each row key."""
    return list({r.row_key: r for r in rows if r.status == "ok"}.values())


def entries(rows: Sequence[Row]) -> list[Entry]:
    """The newest successful rows, each with its table.

    Whatever else rows of one question differ in is another table: options, recipe, data, a limit. Two heads on one data
    set, or two lengths of training, are never two seeds of one.

    Example: `{entry.group for entry in entries(Store("results/runs/mini").rows())}`
    """
    good = newest(rows)
    several = Counter(name for name, _ in {(r.backbone, _built(r)) for r in good})
    asked = [(row, _asked(row)) for row in good]
    count = Counter(_question(row) for row in good)
    shared = Counter((_question(row), text) for row, texts in asked for text in texts)
    found = []
    for row, texts in asked:
        question = _question(row)
        variant = " ".join(t for t in texts if shared[question, t] < count[question])
        data = f"{row.options.get('data', '')} {variant}".strip()
        metric = row.metric or next(iter(row.metrics), "")
        group = (row.task, data, row.protocol or "", row.split or "", metric)
        built = _built(row) if several[row.backbone] > 1 else ""
        name = f"{row.backbone} ({built})" if built else row.backbone
        train = "-" if row.train_grid is None else str(row.train_grid)
        found.append(Entry(row, group, name, train, str(row.eval_grid)))
    return _with_views(found)


def title(group: Group) -> str:
    """`task data protocol, split, metric`."""
    task, data, protocol, split, metric = group
    return " ".join(f"{task} {data} {protocol}, {split}, {metric}".split())


def failures(rows: Sequence[Row]) -> dict[str, str]:
    """Label and error of cells that failed and have no successful row."""
    failed = {r.label or r.backbone: r.error for r in rows if r.status == "failed" and r.error}
    ran = {r.label for r in newest(rows)}
    return {k: v for k, v in failed.items() if k not in ran}


def grid_order(text: str) -> tuple[int, str]:
    """For sorting grids and schedules by their first number."""
    digits = "".join(c if c.isdigit() else " " for c in text).split()
    return (int(digits[0]) if digits else 0, text)


def _question(row: Row) -> tuple[Any, ...]:
    return row.task, row.options.get("data"), row.protocol, row.split


def _asked(row: Row) -> list[str]:
    """Everything that must be equal in one table, as text."""
    limit = {"limit": row.limit} if row.limit else {}
    data = {"contents": row.data_fingerprint[:8]} if row.data_fingerprint else {}
    return [f"{k}={v}" for k, v in {**row.options, **row.recipe, **limit, **data}.items()]


def _built(row: Row) -> str:
    return " ".join(f"{k}={v}" for k, v in sorted(row.backbone_options.items()))


def _with_views(found: Sequence[Entry]) -> list[Entry]:
    """Views by what they differ in: only where one trained model was evaluated at one grid more than once."""
    seen: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in found:
        seen.setdefault((entry.group, entry.backbone, entry.train, entry.grid, entry.seed), []).append(entry)
    differing: dict[Group, set[str]] = {}
    for (group, *_), own in seen.items():
        if len(own) > 1:
            values: dict[str, set[str]] = {}
            for entry in own:
                for key, value in entry.row.view_options.items():
                    values.setdefault(key, set()).add(json.dumps(value, default=str, sort_keys=True))
            partly = {k for k in values if any(k not in entry.row.view_options for entry in own)}
            differing.setdefault(group, set()).update(partly, (k for k, v in values.items() if len(v) > 1))
    return [
        Entry(e.row, e.group, e.backbone, e.train, e.grid, _view(e.row, differing.get(e.group, set()))) for e in found
    ]


def _view(row: Row, differing: set[str]) -> str:
    resize = [row.resize] if row.resize not in (None, "pi") else []
    options: Mapping[str, Any] = row.view_options
    return " ".join([*resize, *(f"{k}={options[k]}" for k in sorted(differing) if k in options)])
