"""Rows to tables: a line for each backbone and training grid, a column for each evaluation grid."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from benchmarks.store import Row

Group = tuple[str, ...]


def newest(rows: Sequence[Row]) -> list[Row]:
    """Successful rows, the newest of each row key."""
    return list({r["row_key"]: r for r in rows if r["status"] == "ok"}.values())


def pivot(rows: Sequence[Row]) -> dict[Group, dict[tuple[str, str], dict[str, list[float | None]]]]:
    """`{(task, data, protocol, split, metric): {(backbone, train grid): {eval grid: values of all seeds}}}`.

    Different protocols are never in one table.
    """
    tables: dict[Group, dict[tuple[str, str], dict[str, list[float | None]]]] = {}
    for row in newest(rows):
        metric = row.get("metric") or next(iter(row["metrics"]), "")
        data = str((row.get("options") or {}).get("data", ""))
        group = (row["task"], data, row["protocol"], row["split"], metric)
        train = "-" if row["train_grid"] is None else str(row["train_grid"])
        grid = str(row["eval_grid"]) + ("" if row.get("resize", "pi") == "pi" else f" {row['resize']}")
        line = tables.setdefault(group, {}).setdefault((row["backbone"], train), {})
        line.setdefault(grid, []).append(row["metrics"].get(metric))
    return tables


def markdown(rows: Sequence[Row]) -> str:
    """Tables in percent; a hole is a dash, several seeds are `mean ± half the range`. Holes stay holes.

    Example: `print(markdown(Store("results/runs/mini").rows()))`
    """
    parts = []
    for (task, data, protocol, split, metric), lines in pivot(rows).items():
        grids = sorted({g for line in lines.values() for g in line}, key=_grid_order)
        head = f"### {task} {data} {protocol}, {split}, {metric} in %".replace("  ", " ")
        table = [f"| backbone | trained at | {' | '.join(grids)} |", f"| --- | ---: |{' ---: |' * len(grids)}"]
        for (backbone, train), line in sorted(lines.items(), key=lambda x: (x[0][0], _grid_order(x[0][1]))):
            table.append(f"| {backbone} | {train} | {' | '.join(_cell(line.get(g)) for g in grids)} |")
        parts.append("\n".join([head, "", *table]))
    failed = {r.get("label") or r["backbone"]: r["error"] for r in rows if r["status"] == "failed" and "error" in r}
    ran = {r.get("label") for r in newest(rows)}
    if left := {k: v for k, v in failed.items() if k not in ran}:
        parts.append("\n".join(["### failed", "", *(f"- {k}: {v}" for k, v in left.items())]))
    return "\n\n".join(parts) + "\n"


def as_csv(rows: Sequence[Row]) -> str:
    """One line a row and metric, values as fractions."""
    keys = ("suite", "task", "protocol", "backbone", "train_grid", "eval_grid", "resize", "seed", "split")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*keys, "data", "metric", "value", "row_key"])
    for row in newest(rows):
        for metric, value in row["metrics"].items():
            data = (row.get("options") or {}).get("data", "")
            writer.writerow([*(row.get(k) for k in keys), data, metric, value, row["row_key"]])
    return out.getvalue()


def _cell(values: Any) -> str:
    if not values or any(v is None for v in values):
        return "-"
    mean = 100 * sum(values) / len(values)
    return f"{mean:.1f}" if len(values) == 1 else f"{mean:.1f} ± {50 * (max(values) - min(values)):.1f}"


def _grid_order(text: str) -> tuple[int, str]:
    digits = "".join(c if c.isdigit() else " " for c in text).split()
    return (int(digits[0]) if digits else 0, text)
