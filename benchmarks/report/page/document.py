"""One static page of folders of results: the answer first, then the budget, curves, tables, and all they rest on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from benchmarks.cost.latency import Latencies
from benchmarks.report.answers.answer import Answer
from benchmarks.report.answers.matrix import headline, matrix, overall
from benchmarks.report.answers.questions import newest, shown
from benchmarks.report.page.curves import as_script, library, payload
from benchmarks.report.page.pictures import drawn, strips
from benchmarks.report.page.provenance import Provenance, commands, costs, missing
from benchmarks.report.published import beside
from benchmarks.report.tables import caption, table_of
from benchmarks.report.training.equal_cost import Budgets, in_short
from benchmarks.report.training.plot import plot_of_training
from benchmarks.store import Store

HERE = Path(__file__).parent
LINES = 24  # of a table's answer in sight; more can be opened
COMPARISONS = 60  # of a table that are on the page grid by grid; all are in verdicts.json


def build_page(
    stores: Sequence[Store],
    answers: Sequence[Answer],
    notes: Sequence[str] = (),
    latencies: Latencies | None = None,
    budgets: Sequence[Budgets] = (),
) -> str:
    """HTML of folders of results; everything is inside the file, and whatever comes from data is escaped.

    Args:
        answers: of all their tables.
        notes: what the reader must know of the folders, such as where they do not agree.
        latencies: by setting and row key.
        budgets: trainings that cost the same, as `budgets_of` finds them.

    Example: `Path("page.html").write_text(build_page([store], answers(entries([store]))))`
    """
    from jinja2 import Environment, FileSystemLoader

    rows, latencies = shown([row for store in stores for row in store.rows()]), latencies or {}
    good = newest(rows)
    told = Provenance(good)
    dates = sorted(r.finished[:10] for r in good if r.finished)
    page = Environment(loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    columns, lines = matrix(answers)
    pictures, left_out = strips(stores)  # before the faults are listed
    return page.get_template("page.html").render(
        name=" + ".join(dict.fromkeys(r.suite or "" for r in good)) or stores[0].folder.name, rows=len(good),
        dates=" to ".join(dict.fromkeys([dates[0], dates[-1]])) if dates else "undated",
        headline=("" if columns else in_short(budgets)) or headline(answers), overall=overall(answers),
        columns=columns, matrix=lines,
        places={part.title: i for i, part in enumerate(answers)}, parts=[_part(one) for one in answers],
        notes=[*notes, *(f for store in stores for f in store.faults)],
        budgets=[
            (own.title, own.lines()[:LINES], own.lines()[LINES:], drawn(plot_of_training(own))) for own in budgets
        ],
        settings=list(latencies), costs=costs(good, latencies), pictures=pictures, left_out=left_out,
        missing=missing(rows, answers), commands=commands(good), environments=told.environments,
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")), library=Markup(library()),
        script=Markup("\n".join((HERE / name).read_text(encoding="utf-8") for name in ("charts.js", "page.js"))),
        payload=Markup(as_script(payload(answers, told, latencies))),
    )  # fmt: skip


def _part(one: Answer) -> dict[str, Any]:
    """What the page says of one table; each cell with the place of its choice, -1 for a hole."""
    table = table_of(one)
    places = {(p.backbone, p.train, f"{p.grid} {p.view}".strip()): i for i, p in enumerate(one.points)}
    lines = [
        (backbone, train, [
            (cell, places.get((backbone, train, column), -1)) for cell, column in zip(cells, table.columns, strict=True)
        ])
        for backbone, train, *cells in table.lines
    ]  # fmt: skip
    said, details = one.lines(), one.details()
    return {
        "title": table.title, "answer": said[:LINES], "more": said[LINES:], "details": details[:COMPARISONS],
        "left_out": len(details[COMPARISONS:]), "columns": table.columns,
        "lines": lines, "published": beside(one.points),
        "caption": caption(" ".join(cell for *_, own in lines for cell, _ in own)),
    }  # fmt: skip
