"""Rows of every older format, and of the CSV tables that are kept of a run, as rows of today."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.store.row import ROW_FORMAT, Row, key_of
from tasks.contract import Recipe


def read_row(line: Any) -> Row:
    """A row out of a line of `rows.jsonl`, whatever version wrote it.

    Raises: ValueError saying why it is not a row of this software, or of a newer one.

    Example: `read_row({"row_format": 1, "task": "toy", "backbone": "tiny", "status": "failed", "error": "x"})`
    """
    if not isinstance(line, dict):
        raise ValueError(f"a {type(line).__name__}, not an object")
    version = line.get("row_format", 0)
    if not isinstance(version, int) or not 0 <= version <= ROW_FORMAT:
        raise ValueError(f"row_format {version!r} is not known; this version reads 0 to {ROW_FORMAT}")
    for step in _STEPS[version:]:
        line = step(line)
    return Row.from_json({**line, "row_format": ROW_FORMAT})


def _from_0(line: dict[str, Any]) -> dict[str, Any]:
    """Rows without a format: `key` was the key, and only successful ones had metrics."""
    line = dict(line)
    key = line.pop("key", None)
    line.setdefault("status", "ok" if line.get("metrics") else "failed")
    line["row_key"] = line.get("row_key") or key or (key_of(line) if line["status"] == "ok" else "")
    return line


def _from_1(line: dict[str, Any]) -> dict[str, Any]:
    """Recipes had fewer values; such a row was made with the default of those that it lacks. One hash stood for all
    data that was read."""
    line = dict(line)
    if fingerprint := line.pop("data_fingerprint", None):
        line["data_identity"] = {"data": fingerprint}
    recipe = line.get("recipe")
    if not isinstance(recipe, Mapping) or not recipe:
        return line
    return {**line, "recipe": {**_DEFAULT_RECIPE, **recipe}}


_DEFAULT_RECIPE = dataclasses.asdict(Recipe())
_STEPS: tuple[Callable[[dict[str, Any]], dict[str, Any]], ...] = (_from_0, _from_1)


def rows_of_csv(path: Path) -> list[Row]:
    """The rows of a `rows.csv` that a report wrote: a line there is one metric of a row.

    Such rows have no samples, costs or recipes.

    Raises: ValueError with file and line for what is not such a table.

    Example: `rows_of_csv(Path("results/measured/demo/rows.csv"))`
    """
    lines: dict[str, dict[str, Any]] = {}
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        try:
            for entry in reader:
                _take(lines, entry)
        except (KeyError, ValueError, TypeError, csv.Error) as error:
            what = f"no column {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{path}:{reader.line_num}: not a table of rows: {what}") from None
    return [read_row(line) for line in lines.values()]


def _take(lines: dict[str, dict[str, Any]], entry: Mapping[str, str]) -> None:
    row = lines.setdefault(entry["row_key"], {
        **{k: entry[k] or None for k in ("suite", "task", "protocol", "backbone", "split", "resize")},
        "train_grid": _grid(entry["train_grid"]), "eval_grid": _grid(entry["eval_grid"]), "seed": int(entry["seed"]),
        "options": {"data": entry["data"]} if entry["data"] else {}, "status": "ok", "row_key": entry["row_key"],
        "metric": entry["metric"], "metrics": {}, "limit": int(entry.get("limit") or 0) or None,
    })  # fmt: skip
    row["metrics"][entry["metric"]] = float(entry["value"]) if entry["value"] else None


def _grid(text: str) -> int | str | None:
    return int(text) if text.isdigit() else text or None
