"""Every paper and mini cell in full: `python tests/protocols/golden.py` writes tests/golden_recipes.yaml."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tests" / "golden_recipes.yaml"
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.engine.plan import cell_task  # noqa: E402
from benchmarks.engine.suite import Cell, list_suites, load_suite  # noqa: E402
from tasks.protocols import ROOMS, protocol  # noqa: E402

PREFIXES = ("paper/", "mini/")
HEAD = """\
# Constants and recipes, and every cell of the paper and mini suites; `python tests/protocols/golden.py` writes them. A
# change here is a change of numbers: raise the version in the task's protocol.yaml with it.
"""


def recipes() -> dict[str, dict[str, Any]]:
    """Suite -> cell -> all that makes it: protocol, recipe, options, schedule, views, splits.

    Seeds of one cell are listed together. Recipe fields at their default are left out.
    """
    found = {}
    for name in list_suites():
        if name.startswith(PREFIXES):
            cells: dict[str, Any] = {}
            for cell in load_suite(name, "data").cells:
                label, told = described(cell)
                cells.setdefault(label, {**told, "seeds": []})["seeds"].append(cell.seed)
            found[name] = cells
    return found


def protocols() -> dict[str, Any]:
    """Room -> versions, constants and recipes of its protocol file, without their sources."""
    return {
        room: {
            "versions": dict(told.versions),
            "constants": {n: plain(c.value) for n, c in told.constants.items()},
            "recipes": {n: plain({**r.recipe, **r.settings}) for n, r in told.recipes.items()},
        }
        for room, told in ((room, protocol(room)) for room in ROOMS)
    }


def described(cell: Cell) -> tuple[str, dict[str, Any]]:
    """A name for a cell without its seed, and what it is."""
    task = cell_task(cell, "data")
    recipe, default = (dataclasses.asdict(r) for r in (task.recipe, type(task.recipe)()))
    options = plain({**task.options.stage("train"), **task.options.stage("eval")})
    told = {
        "protocol": task.card.protocol,
        "image_size": task.card.image_size,
        "recipe": {n: plain(v) for n, v in recipe.items() if v != default[n] or n in ("steps", "batch", "lr")},
        "options": {n: json.dumps(v) if isinstance(v, list) else v for n, v in options.items()},
        "backbone_options": plain(dict(cell.backbone_options)),
        "train": cell.train,
        "views": [" ".join(map(str, (f"{v.grid[0]}x{v.grid[1]}", v.resize, *v.options))) for v in cell.views],
        "splits": list(cell.splits),
    }
    words = [cell.task, str(cell.options.get("data", "")), *own_words(cell), cell.backbone, cell.train or ""]
    return " ".join(p for p in words if p), {n: v for n, v in told.items() if v not in ({}, [], None)}


def own_words(cell: Cell) -> list[str]:
    """The cell's own options and recipe, so that no two cells of a suite share a name."""
    options = {n: v for n, v in cell.options.items() if n != "data"}
    return [f"{n}={v}" for n, v in {**options, **cell.recipe, **dict(cell.backbone_options)}.items()]


def plain(value: Any) -> Any:
    """Tuples as lists, mappings as dicts: what YAML holds."""
    if isinstance(value, dict):
        return {str(n): plain(v) for n, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


def text() -> str:
    """The file as it must be."""
    options = {"sort_keys": False, "width": 118, "default_flow_style": None, "allow_unicode": True}
    return HEAD + yaml.dump({"protocols": protocols(), **recipes()}, Dumper=_Dumper, **options)


class _Dumper(yaml.SafeDumper):
    """Repeated values are written out, so that a diff shows each cell."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
