"""Which rows stand together: one table is one question, and what its rows differ in is named."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.engine.identity import data_key
from benchmarks.store import Row, Store
from tasks.contract import Recipe
from tasks.registry import task_class

Group = tuple[str, ...]
_USUAL_RECIPE = dataclasses.asdict(Recipe())


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
    store: Store
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


def shown(rows: Sequence[Row]) -> list[Row]:
    """The rows that a reader is shown: those of a smoke test only where there are no whole ones."""
    whole = any(r.status == "ok" and not r.limit for r in rows)
    return [r for r in rows if not (whole and r.limit)]


def smoke_notes(rows: Sequence[Row]) -> list[str]:
    """A line about the rows of smoke tests among some, if there are any.

    Example: `smoke_notes(store.rows())` is `["5 rows of a smoke test (--limit 6) are left out"]`
    """
    good = newest(rows)
    smoke = [r for r in good if r.limit]
    if not smoke:
        return []
    limits = ", ".join(str(n) for n in sorted({r.limit or 0 for r in smoke}))
    if len(smoke) == len(good):
        return [f"a smoke test: no more than {limits} samples of each split were evaluated (--limit)"]
    return [f"{len(smoke)} rows of a smoke test (--limit {limits}) are left out"]


def entries(stores: Sequence[Store], apart: bool = False) -> list[Entry]:
    """The newest successful rows of folders, each with its table.

    Whatever else rows of one question differ in is another table: options, recipe, data, a limit. Two heads on one data
    set, or two lengths of training, are never two seeds of one. A backbone of which two folders have the same training
    run bears the folder's name; other seeds of it are other seeds.

    Args:
        apart: a backbone that is in two folders bears the folder's name in any case.

    Example: `{entry.group for entry in entries([Store("results/runs/mini")])}`
    """
    every = [(row, store) for store in stores for row in newest(store.rows())]
    kept = set(map(id, shown([row for row, _ in every])))
    good = [(row, store) for row, store in every if id(row) in kept]
    several = Counter(name for name, _ in {(r.backbone, _built(r)) for r, _ in good})
    count = Counter(_question(row) for row, _ in good)
    asked = _without_defaults([row for row, _ in good], count)
    shared = Counter((_question(row), item) for (row, _), own in zip(good, asked, strict=True) for item in own.items())
    found = []
    for (row, store), own in zip(good, asked, strict=True):
        question = _question(row)
        variant = " ".join(
            f"{k}={v}" for k, v in own.items() if k == "limit" or shared[question, (k, v)] < count[question]
        )
        data = f"{row.options.get('data', '')} {variant}".strip()
        metric = row.metric or next(iter(row.metrics), "")
        group = (row.task, data, row.protocol or "", row.split or "", metric)
        built = _built(row) if several[row.backbone] > 1 else ""
        name = f"{row.backbone} ({built})" if built else row.backbone
        train = "-" if row.train_grid in (None, "") else str(row.train_grid)
        found.append(Entry(row, store, group, name, train, str(row.eval_grid)))
    return _with_folders(_with_views(found), apart)


def asked_of(row: Row) -> dict[str, str]:
    """Everything that must be equal in one table beside protocol, split and metric."""
    # a row that is older than a value of recipes was made with that value's default
    recipe = {**_USUAL_RECIPE, **row.recipe} if row.recipe else {}
    asked: dict[str, Any] = {**row.options, **recipe}
    if row.limit:
        asked["limit"] = row.limit
    if contents := data_key(row):
        asked["contents"] = contents[:8]
    return {k: str(v) for k, v in asked.items()}


def _without_defaults(rows: Sequence[Row], count: Mapping[tuple[Any, ...], int]) -> list[dict[str, str]]:
    """`asked_of` each row; an option that names its default is left out where other rows do not name it."""
    asked = [asked_of(row) for row in rows]
    named = Counter((_question(row), name) for row in rows for name in row.options)
    for row, own in zip(rows, asked, strict=True):
        for name in row.options:
            rare = named[_question(row), name] < count[_question(row)]
            if rare and own.get(name) == _usual_options(row.task).get(name):
                del own[name]
    return asked


@functools.lru_cache(maxsize=64)
def _usual_options(task: str) -> dict[str, str]:
    """Defaults of a task's options; none where its plug-in is not installed, fails or is not trusted here."""
    try:
        usual = task_class(task).Options()
        return {f.name: str(getattr(usual, f.name)) for f in dataclasses.fields(usual)}
    except Exception:  # a plug-in may raise anything; its rows are then told apart by what they name
        return {}


def title(group: Group) -> str:
    """`task data protocol, split, metric`."""
    task, data, protocol, split, metric = group
    return " ".join(f"{task} {data} {protocol}, {split}, {metric}".split())


def failures(rows: Sequence[Row]) -> dict[str, str]:
    """Label and error of cells that failed and have no successful row."""
    failed = {r.cell_key or r.label: r for r in rows if r.status == "failed" and r.error}
    ran = {r.cell_key or r.label for r in newest(rows)}
    return {r.label or r.backbone: r.error for key, r in failed.items() if key not in ran and r.error}


def grid_order(text: str) -> tuple[int, str]:
    """For sorting grids and schedules by their first number."""
    digits = "".join(c if c.isdigit() else " " for c in text).split()
    return (int(digits[0]) if digits else 0, text)


def _question(row: Row) -> tuple[Any, ...]:
    return row.task, str(row.options.get("data")), row.protocol, row.split


def _built(row: Row) -> str:
    return " ".join(f"{k}={v}" for k, v in sorted(row.backbone_options.items()))


def _with_views(found: Sequence[Entry]) -> list[Entry]:
    """Views by what they differ in: only where one trained model was evaluated at one grid more than once."""
    seen: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in found:
        place = (entry.group, entry.backbone, entry.train, entry.grid, entry.seed, entry.row.resize, entry.store.folder)
        seen.setdefault(place, []).append(entry)
    differing: dict[Group, set[str]] = {}
    for (group, *_), own in seen.items():
        if len(own) > 1:
            values: dict[str, set[str]] = {}
            for entry in own:
                for key, value in entry.row.view_options.items():
                    values.setdefault(key, set()).add(json.dumps(value, default=str, sort_keys=True))
            partly = {k for k in values if any(k not in entry.row.view_options for entry in own)}
            differing.setdefault(group, set()).update(partly, (k for k, v in values.items() if len(v) > 1))
    return [dataclasses.replace(e, view=_view(e.row, differing.get(e.group, set()))) for e in found]


def _with_folders(found: Sequence[Entry], apart: bool) -> list[Entry]:
    """Where two folders hold the same training run of the same name, both names are told apart."""
    places: dict[tuple[Any, ...], set[str]] = {}
    for e in found:
        place = (e.backbone,) if apart else (e.backbone, e.group, e.train, e.grid, e.view, e.seed)
        places.setdefault(place, set()).add(str(e.store.folder))
    twice = {place[0] for place, folders in places.items() if len(folders) > 1}
    return [
        dataclasses.replace(e, backbone=f"{e.backbone} [{e.store.folder.name}]") if e.backbone in twice else e
        for e in found
    ]


def _view(row: Row, differing: set[str]) -> str:
    resize = [row.resize] if row.resize not in (None, "pi") else []
    options: Mapping[str, Any] = row.view_options
    return " ".join([*resize, *(f"{k}={options[k]}" for k in sorted(differing) if k in options)])
