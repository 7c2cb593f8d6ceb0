"""Writes docs/protocols.md out of the `protocol.yaml` files: `python docs/write_protocols.py`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

PAGE = Path(__file__).with_name("protocols.md")
sys.path.insert(0, str(PAGE.parents[1]))

from tasks.protocols import ROOMS, Protocol, protocol  # noqa: E402

HEAD = """\
# Protocols and their sources

Every recipe and constant of the tasks is data: a file `protocol.yaml` in each task's folder, which the code reads. This
page is made of them by `python docs/write_protocols.py`. A value whose source is *ours* is published nowhere; what
differs from the official code on purpose is listed with its reason. A version is raised whenever its numbers may move,
and is part of every row: rows of two versions are never compared.
"""
ITEMS = Path(__file__).with_name("official_items.yaml")
BESIDE = """\
## Beside the official code, item by item

*Same*: the official value, in the tables below with its source. *Differs*: on purpose, said in the table named. The
files named as sources were read at the commits named; what is cited by a section or table of a paper was not to be
had as code.
"""


def page() -> str:
    """The whole page, Markdown."""
    return "\n".join([HEAD, *items(), *(line for room in ROOMS for line in section(room, protocol(room)))])


def items() -> Iterable[str]:
    """The lines of the table that goes through what papers and official code do, and says where we differ."""
    yield BESIDE
    told = yaml.safe_load(ITEMS.read_text(encoding="utf-8"))
    yield from table(("item", "here", "where"), ((i["item"], i["here"], i["where"]) for i in told))


def section(room: str, told: Protocol) -> Iterable[str]:
    """The lines of a room."""
    yield f"## {told.title}\n"
    yield f"File: `tasks/{room}/protocol.yaml`.\n"
    if told.versions:
        versions = ", ".join(f"`{name}` v{number}" for name, number in told.versions.items())
        yield f"Versions: {versions}.\n"
    yield "Sources: " + "; ".join(f"**{name}** {what}" for name, what in told.sources.items()) + ".\n"
    if told.constants:
        rows = ((f"`{n}`", shown(c.value), c.source) for n, c in told.constants.items())
        yield from table(("constant", "value", "source"), rows)
    if told.recipes:
        rows = ((f"`{n}`", settings({**r.recipe, **r.settings}), r.source) for n, r in told.recipes.items())
        yield from table(("recipe", "values", "source"), rows)
    if told.differs:
        yield from table(
            ("differs on purpose", "ours", "official", "reason"),
            ((d.field, d.ours, d.official, d.reason) for d in told.differs),
        )


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterable[str]:
    """A Markdown table and an empty line."""
    for row in (head, ("---",) * len(head), *rows):
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
    yield ""


def settings(values: Mapping[str, Any]) -> str:
    """`name value` of each, candidates by their number."""
    several = {n: f"{len(v)} tried on minival" if n == "candidates" else shown(v) for n, v in values.items()}
    return ", ".join(f"{name} {value}" for name, value in several.items())


def shown(value: Any) -> str:
    """A value as YAML and JSON write it."""
    return value if isinstance(value, str) else json.dumps(value)


if __name__ == "__main__":
    PAGE.write_text(page().rstrip() + "\n", encoding="utf-8")
