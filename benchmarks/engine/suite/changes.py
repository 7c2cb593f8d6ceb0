"""What the command line changes about a suite: `--set` its values, `--only` its cells."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from benchmarks.engine.suite.reading import Document, SuiteError, near, read_value
from benchmarks.engine.suite.spec import SuiteSpec
from tasks.contract import Recipe
from tasks.data.errors import shown

TOP = tuple(SuiteSpec.model_fields)
EACH = {"recipe": tuple(f.name for f in fields(Recipe)), "options": ("data",)}  # set for every task
FIELDS = ("task", "backbone", "train", "seed", "data", "protocol")


def apply_setting(document: Document, setting: str) -> None:
    """Change one dotted key in place; `recipe.X` and `options.X` mean those of every task.

    Raises: SuiteError for a setting that is not KEY=VALUE, a value that is no YAML, or a place that there is not.

    Example: `apply_setting(document, "recipe.lr=1e-3")`
    """
    dotted, equals, text = setting.partition("=")
    if not equals or not all(dotted.split(".")):
        raise SuiteError(f"--set {setting!r} is not KEY=VALUE, such as recipe.steps=50 or seeds=[0,1]")
    try:
        keys, value = dotted.split("."), read_value(text)
    except ValueError as error:
        raise SuiteError(f"--set {setting!r}: {error}") from None
    raw = document.raw
    if keys[0] not in TOP and (keys[0] not in EACH or len(keys) < 2):
        more = [f"{name}.{own}" for name, owned in EACH.items() for own in owned]
        alike = difflib.get_close_matches(keys[0], [*TOP, *EACH], 1)
        told = f"nearest: {alike[0]}" if alike and len(keys) > 1 else near(dotted, [*TOP, *more])
        raise SuiteError(f"--set {setting!r}: no key {keys[0]!r}; {told}")
    if keys[0] not in EACH:
        _assign(document, keys, value, setting)
        return
    tasks = raw.get("tasks")
    for number, entry in enumerate(tasks if isinstance(tasks, list) else []):
        if isinstance(entry, str):
            raw["tasks"][number] = {"task": entry}
        _assign(document, ["tasks", str(number), *keys], value, setting)


def _assign(document: Document, keys: Sequence[str], value: Any, setting: str) -> None:
    place: Any = document.raw
    where: list[Any] = []
    for key in keys[:-1]:
        if isinstance(place, list):
            where.append(_index(place, key, setting))
            place = place[where[-1]]
        else:
            if place.get(key) is None:
                place[key] = {}
            # anchors give several tasks one mapping: what is set for one must not change the others
            place[key] = type(place[key])(place[key]) if isinstance(place[key], dict | list) else place[key]
            where.append(key)
            place = place[key]
        if not isinstance(place, dict | list):
            name = ".".join(map(str, where))
            raise SuiteError(f"--set {setting!r}: {name} is {shown(place, 60)}, which has no {keys[len(where)]!r}")
    last = _index(place, keys[-1], setting) if isinstance(place, list) else keys[-1]
    place[last] = value
    document.settings[(*where, last)] = setting


def _index(place: list, key: str, setting: str) -> int:
    if not (key.isascii() and key.isdecimal()) or int(key) >= len(place):
        raise SuiteError(f"--set {setting!r}: {key!r} is not one of the {len(place)} entries (from 0)")
    return int(key)


def cell_filter(text: str) -> Callable[[Any], bool]:
    """Whether a cell is meant by `NAME=VALUE`, values being wildcards and lists with `|`.

    Args: text: NAME is one of `FIELDS`, or what a suite sets of a task's options, recipe or backbone.

    Raises: SuiteError for another form.

    Example: `cell_filter("backbone=flexivit_*|vit_*")(cell)`
    """
    name, equals, wanted = text.partition("=")
    if not equals or not name:
        raise SuiteError(
            f"--only {text!r} is not NAME=VALUE, such as backbone=flexivit_nano; names: {', '.join(FIELDS)}"
        )
    patterns = wanted.split("|")

    def matches(cell: Any) -> bool:
        value = _value(cell, name)
        if value is None:  # a wildcard is no wish for cells that have nothing of the name
            return "None" in patterns
        return any(value == p or fnmatch.fnmatch(value, p) for p in patterns)

    return matches


def settings_of(cell: Any) -> dict[str, str]:
    """What a suite sets of a cell: options of the backbone and of the task, recipe."""
    return {k: str(v) for part in (cell.backbone_options, cell.options, cell.recipe) for k, v in part.items()}


def _value(cell: Any, name: str) -> str | None:
    own = ("task", "backbone", "train", "seed")
    return str(getattr(cell, name)) if name in own else settings_of(cell).get(name)


def unknown_name(cells: Sequence[Any], only: Sequence[str]) -> str:
    """What is wrong with a filter by a name that no cell has, with the nearest there are; "" where all are known.

    Example: `unknown_name(cells, ["protcol=knn"])` is `--only protcol=knn: no cell has a protcol; nearest: protocol`
    """
    known = dict.fromkeys([*FIELDS, *(k for cell in cells for k in settings_of(cell))])
    for text in only:
        if (name := text.partition("=")[0]) not in known:
            nearest = difflib.get_close_matches(name, known, 3, 0.4) or known
            return f"--only {text}: no cell has a {name}; nearest: {', '.join(nearest)}"
    return ""


def what_there_is(cells: Sequence[Any], only: Sequence[str]) -> str:
    """What the cells have of the names that filters ask for.

    Example: `what_there_is(cells, ["task=clasification"])` is `there are: task=classification, task=segmentation`
    """
    names = dict.fromkeys(text.partition("=")[0] for text in only)
    return f"there are: {', '.join(dict.fromkeys(f'{n}={_value(c, n)}' for n in names for c in cells))}"
