"""Where folders of results do not agree, so that their rows are not compared."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from benchmarks.report.answers.questions import asked_of, newest, shown
from benchmarks.store import Row, Store

Values = dict[str, set[str]]


def disagreements(stores: Sequence[Store]) -> list[str]:
    """A line for each task and data set that two folders have, but not under the same protocol, recipe and data.

    Example: `disagreements([Store("results/runs/a"), Store("results/runs/b")])`
    """
    found = []
    held = [(store, _questions(newest(shown(store.rows())))) for store in stores]
    for (one, own), (other, theirs) in itertools.combinations(held, 2):
        for question in own:
            if question not in theirs:
                continue
            differ = _differ(own[question], theirs[question])
            if differ:
                task, data, split = question
                name = f"{task} {data}, {split}".replace(" ,", ",")
                found.append(
                    f"{name}: {one.folder} and {other.folder} do not agree in {'; '.join(differ)}: separate tables"
                )
    return found


def _questions(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[dict[str, str]]]:
    found: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    for row in rows:
        asked = {"protocol": str(row.protocol), "metric": str(row.metric), **asked_of(row)}
        question = (row.task, str(row.options.get("data", "")), row.split or "")
        if asked not in found.setdefault(question, []):
            found[question].append(asked)
    return found


def _differ(own: Sequence[dict[str, str]], theirs: Sequence[dict[str, str]]) -> list[str]:
    """What stands against it that any table of one is also a table of the other; nothing where one is."""
    if any(a in theirs for a in own):
        return []
    one, other = min(itertools.product(own, theirs), key=lambda pair: len(_keys(*pair)))
    return [f"{key} ({one.get(key, '-')}, {other.get(key, '-')})" for key in _keys(one, other)]


def _keys(one: dict[str, str], other: dict[str, str]) -> list[str]:
    return [k for k in {**one, **other} if one.get(k) != other.get(k)]
