"""Rows to tables: a line for each backbone and training grid, a column for each evaluation grid."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

from benchmarks.store import Row
from tasks.contract import Recipe

Group = tuple[str, ...]


def newest(rows: Sequence[Row]) -> list[Row]:
    """Successful rows, the newest of each row key; `variant` names the options and recipe values by which rows of one
    table would differ. Two heads on one data set, or two lengths of training, are never two seeds of one.

    A backbone that comes with several sets of options bears them in its name.
    """
    good = _named(list({r["row_key"]: r for r in rows if r["status"] == "ok"}.values()))
    asked = [(row, {k: f"{k}={v}" for k, v in {**(row.get("options") or {}), **_recipe(row)}.items()}) for row in good]
    count: Counter[tuple] = Counter(_question(row) for row, _ in asked)
    shared = Counter((_question(row), text) for row, options in asked for text in options.values())
    return [
        {**row, "variant": " ".join(t for t in options.values() if shared[_question(row), t] < count[_question(row)])}
        for row, options in asked
    ]


def _recipe(row: Row) -> dict[str, Any]:
    # a row that is older than a value of recipes was made with that value's default
    return dataclasses.asdict(Recipe()) | row["recipe"] if row.get("recipe") else {}


def _named(rows: list[Row]) -> list[Row]:
    built = {(r["backbone"], _options(r)) for r in rows}
    several = Counter(name for name, _ in built)
    return [
        {**r, "backbone": f"{r['backbone']} ({_options(r)})"} if several[r["backbone"]] > 1 and _options(r) else r
        for r in rows
    ]


def _options(row: Row) -> str:
    return " ".join(f"{k}={v}" for k, v in sorted((row.get("backbone_options") or {}).items()))


def _question(row: Row) -> tuple:
    return row["task"], (row.get("options") or {}).get("data"), row["protocol"]


def group_of(row: Row) -> Group:
    """Which table a row of `newest` is in: task, data with its variant, protocol, split, metric."""
    metric = row.get("metric") or next(iter(row["metrics"]), "")
    data = f"{(row.get('options') or {}).get('data', '')} {row.get('variant', '')}".strip()
    return (row["task"], data, row["protocol"], row["split"], metric)


def pivot(rows: Sequence[Row]) -> dict[Group, dict[tuple[str, str], dict[str, list[float | None]]]]:
    """`{(task, data, protocol, split, metric): {(backbone, train grid): {eval grid: values of all seeds}}}`.

    Different protocols are never in one table.
    """
    tables: dict[Group, dict[tuple[str, str], dict[str, list[float | None]]]] = {}
    for row in newest(rows):
        metric = row.get("metric") or next(iter(row["metrics"]), "")
        group = group_of(row)
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
    for group, (grids, lines) in cells(rows).items():
        parts.append(f"### {title(group)}\n\n{table(grids, lines)}")
    if left := failures(rows):
        parts.append("\n".join(["### failed", "", *(f"- {k}: {v}" for k, v in left.items())]))
    return "\n\n".join(parts) + "\n"


def table(grids: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """One table of `cells` as markdown; a bar in a name cannot break it."""
    head = [f"| backbone | trained at | {' | '.join(grids)} |", f"| --- | ---: |{' ---: |' * len(grids)}"]
    return "\n".join([*head, *(f"| {' | '.join(c.replace('|', '/') for c in line)} |" for line in lines)])


def failures(rows: Sequence[Row]) -> dict[str, str]:
    """Label and error of cells that failed and have no successful row."""
    failed = {r.get("label") or r["backbone"]: r["error"] for r in rows if r["status"] == "failed" and "error" in r}
    ran = {r.get("label") for r in newest(rows)}
    return {k: v for k, v in failed.items() if k not in ran}


def title(group: Group) -> str:
    """`task data protocol, split, metric in %`."""
    task, data, protocol, split, metric = group
    return " ".join(f"{task} {data} {protocol}, {split}, {metric} in %".split())


def cells(rows: Sequence[Row]) -> dict[Group, tuple[list[str], list[list[str]]]]:
    """Each table as text: its grids, and lines of backbone, training grid and a cell for each grid."""
    found = {}
    for group, lines in pivot(rows).items():
        grids = sorted({g for line in lines.values() for g in line}, key=_grid_order)
        ordered = sorted(lines.items(), key=lambda x: (x[0][0], _grid_order(x[0][1])))
        found[group] = (grids, [[*names, *(_cell(line.get(g)) for g in grids)] for names, line in ordered])
    return found


_LATEX = {"_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}", "±": r"$\pm$"}


def latex(rows: Sequence[Row]) -> str:
    """The same tables for booktabs."""

    def safe(text: str) -> str:
        return "".join(_LATEX.get(c, c) for c in text.replace("\\", "/"))

    parts = []
    for group, (grids, lines) in cells(rows).items():
        body = [" & ".join(safe(cell) for cell in line) + r" \\" for line in lines]
        head = " & ".join(["backbone", "trained at", *map(safe, grids)]) + r" \\"
        parts.append("\n".join([
            f"% {title(group)}", rf"\begin{{tabular}}{{l{'r' * (len(grids) + 1)}}}", r"\toprule", head, r"\midrule",
            *body, r"\bottomrule", r"\end{tabular}",
        ]))  # fmt: skip
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
