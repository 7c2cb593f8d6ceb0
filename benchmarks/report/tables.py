"""Tables of a report: a line for each backbone and training, a column for each evaluation grid."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.report.answers.answer import Answer
from benchmarks.report.answers.points import Point
from benchmarks.report.answers.questions import grid_order, newest, title
from benchmarks.report.statistics.variance import ALPHA, quantile
from benchmarks.store import Row

CAPTION = "± is half a 95 % interval over samples and training runs, where several were made"
NOTHING = "(≤ x) is its upper end where nothing was found"


@dataclass(frozen=True)
class Table:
    """A table as text. `lines`: backbone, training, a cell for each of `columns`; a hole is a dash."""

    title: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


def table_of(answer: Answer) -> Table:
    """Each cell the mean over seeds, ± half its 95 % interval where that is known.

    Example: `table_of(answers(entries([store]))[0]).lines`
    """
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for backbone, train, column in answer.places:
        cells.setdefault((backbone, train), {})[column] = "-"
    for point in answer.points:
        column = f"{point.grid} {point.view}".strip()
        cells.setdefault((point.backbone, point.train), {})[column] = cell(answer, point)
    columns = sorted({c for own in cells.values() for c in own}, key=grid_order)
    lines = sorted(cells.items(), key=lambda item: (item[0][0], grid_order(item[0][1])))
    unit = f" in {answer.words.unit}" if answer.words.unit else ""
    return Table(
        f"{title(answer.group)}{unit}", tuple(columns),
        tuple((*names, *(own.get(c, "-") for c in columns)) for names, own in lines),
    )  # fmt: skip


def cell(answer: Answer, point: Point) -> str:
    """`55.0`, `55.0 ± 1.2`, `0.0 (≤ 1.2)` of a fraction; over seeds alone where nothing is kept of samples."""
    digits = answer.words.digits
    text = f"{answer.words.scale * point.quality:.{digits}f}"
    half = half_width(answer, point)
    if half is None:
        return text
    spread = f"{answer.words.scale * half:.{digits}f}"
    return f"{text} (≤ {spread})" if answer.rules.fraction and not point.quality else f"{text} ± {spread}"


def half_width(answer: Answer, point: Point) -> float | None:
    """Half the 95 % interval of a choice, in the unit of the metric; None where nothing is known of its spread."""
    found = point.estimate(answer.rules.fraction)
    if found is not None:
        return found.half_width()
    if len(point.rows) < 2:
        return None
    values = np.array([row.metrics[row.metric or ""] for row in point.rows], np.float64)
    return float(quantile(1 - ALPHA / 2, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)


def markdown(answers: Sequence[Answer], failed: Mapping[str, str] | None = None) -> str:
    """All tables, and what failed.

    Example: `print(markdown(answers(entries([Store("results/runs/mini")]))))`
    """
    parts = [f"### {plain(table.title)}\n\n{as_markdown(table)}" for table in map(table_of, answers)]
    if legend := caption("".join(parts)):
        parts.append(f"{legend}.")
    if failed:
        parts.append("\n".join(["### failed", "", *(f"- {plain(k)}: {plain(v)}" for k, v in failed.items())]))
    return "\n\n".join(parts) + "\n"


def caption(text: str) -> str:
    """What the signs in the cells of some tables mean; empty where there are none."""
    return "; ".join([CAPTION] * ("±" in text or "(≤" in text) + [NOTHING] * ("(≤" in text))


def as_markdown(table: Table) -> str:
    """One table; what comes from data can neither break it nor be HTML."""
    head = [
        f"| backbone | trained at | {' | '.join(map(plain, table.columns))} |",
        f"| --- | ---: |{' ---: |' * len(table.columns)}",
    ]
    return "\n".join([*head, *(f"| {' | '.join(map(plain, line))} |" for line in table.lines)])


_MARKDOWN = str.maketrans({"&": "&amp;", "<": "&lt;", "[": "&#91;", "`": "&#96;", "|": "/", "\n": " ", "\r": " "})


def plain(text: str) -> str:
    """Text for markdown that is neither HTML, a link, a picture nor code, and cannot break a table.

    Example: `plain("<script>")` is "&lt;script>"
    """
    return text.translate(_MARKDOWN)


_LATEX = {"_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}", "±": r"$\pm$",
          "^": r"\^{}", "~": r"\~{}"}  # fmt: skip


def latex(answers: Sequence[Answer]) -> str:
    """The same tables for booktabs."""

    def safe(text: str) -> str:
        return "".join(_LATEX.get(c, c) for c in text.replace("\\", "/").replace("\n", " "))

    parts = []
    for table in map(table_of, answers):
        body = [" & ".join(map(safe, line)) + r" \\" for line in table.lines]
        head = " & ".join(["backbone", "trained at", *map(safe, table.columns)]) + r" \\"
        parts.append("\n".join([
            f"% {table.title}".replace("\n", " "), rf"\begin{{tabular}}{{l{'r' * (len(table.columns) + 1)}}}",
            r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}",
        ]))  # fmt: skip
    return "\n\n".join(parts) + "\n"


def as_csv(rows: Sequence[Row]) -> str:
    """One line a row and metric, values as fractions or in the metric's unit."""
    keys = ("suite", "task", "protocol", "backbone", "train_grid", "eval_grid", "resize", "seed", "split")
    out, good = io.StringIO(), newest(rows)
    writer = csv.writer(out, lineterminator="\n")
    marked = ("limit",) if any(row.limit for row in good) else ()  # of smoke tests alone
    writer.writerow([*keys, "data", "metric", "value", "row_key", *marked])
    for row in good:
        first, last = [row.get(k) for k in keys], [row.limit for _ in marked]
        for metric, value in row.metrics.items():
            writer.writerow([*first, row.options.get("data", ""), metric, value, row.row_key, *last])
    return out.getvalue()
