"""Writes the report of folders of results."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cost.latency import Latencies, read_latencies
from benchmarks.report.answers.agreement import disagreements
from benchmarks.report.answers.answer import Answer, answers
from benchmarks.report.answers.matrix import overall
from benchmarks.report.answers.points import latency_of
from benchmarks.report.answers.questions import Group, entries, failures, newest, shown, smoke_notes, title
from benchmarks.report.answers.verdicts import as_json
from benchmarks.report.page import build_page, commands, environments
from benchmarks.report.plots import plot, save_plot
from benchmarks.report.statistics.best import within_budget
from benchmarks.report.tables import as_csv, as_markdown, caption, latex, markdown, plain, table_of
from benchmarks.report.training.equal_cost import Budgets, budgets_of
from benchmarks.report.training.plot import plot_of_training
from benchmarks.store import Row, Store, key_of, write_atomically

LONGEST = 200  # bytes of a file's name; file systems take 255


@dataclasses.dataclass(frozen=True)
class Report:
    """Folders of results, read once.

    Args:
        answers: of every table.
        budgets: trainings of one backbone that cost the same, against each other.
        notes: where the folders do not agree.
        latencies: by setting and row key.
    """

    stores: tuple[Store, ...]
    rows: tuple[Row, ...]
    answers: tuple[Answer, ...]
    budgets: tuple[Budgets, ...]
    notes: tuple[str, ...]
    latencies: Latencies

    def markdown(self) -> str:
        """All tables, and what failed."""
        return markdown(self.answers, failures(self.rows))


def read_report(stores: Sequence[Store], margin: float | None = None) -> Report:
    """Read folders and compute every verdict.

    Args:
        margin: what a replacement may lose, as the metric is shown (points for per cent); None: as the metric says.

    Raises: ValueError where no folder has a successful row.

    Example: `read_report([Store("results/runs/demo")]).answers[0].lines()`
    """
    found = entries(stores)
    if not found:
        names = ", ".join(str(s.path) for s in stores)
        raise ValueError(f"no successful row in {names}; run a suite with --out {stores[0].folder} first")
    rows = [row for store in stores for row in store.rows()]
    notes = (*smoke_notes(rows), *disagreements(stores))
    told = tuple(answers(found, margin))
    return Report(tuple(stores), tuple(shown(rows)), told, tuple(budgets_of(told)), notes, read_latencies(stores))


def write_report(report: Report, folder: Path) -> Path:
    """page.html, tables.md, tables.tex, rows.csv, verdicts.json and PNG and PDF plots of each table.

    Example: `write_report(read_report([store]), store.folder / "report")`
    """
    texts = {
        "page.html": build_page(report.stores, report.answers, report.notes, report.latencies, report.budgets),
        "tables.md": report.markdown(),
        "tables.tex": latex(report.answers), "rows.csv": as_csv(report.rows),
        "verdicts.json": _verdicts(report),
    }  # fmt: skip
    _write(folder, texts)
    for answer in report.answers:
        _plots(answer, report, folder, vector=True)
    for own in report.budgets:
        _training_plot(own, report, folder, vector=True)
    return folder


def write_measured(report: Report, folder: Path) -> Path:
    """What is kept of a run for others: README.md with answer, tables, plots, commands and machine, rows.csv and
    verdicts.json.

    `reading.md` in that folder is taken in where it lies there. Neither pictures nor weights: they may be somebody's.

    Raises: ValueError for rows of a smoke test.

    Example: `write_measured(read_report([store]), Path("results/measured/mini"))`
    """
    good = newest(report.rows)
    if any(row.limit for row in good):
        raise ValueError("rows of a smoke test (--limit) are not kept as a measurement; run the suite without it")
    folder.mkdir(parents=True, exist_ok=True)
    reading = folder / "reading.md"
    suites = " + ".join(dict.fromkeys(str(r.suite) for r in good))
    first = (*report.notes, *overall(report.answers))
    parts = [f"# {plain(suites)}\n", *(f"- {plain(line)}" for line in first), ""]
    for own in report.budgets:
        parts += [f"## At equal cost of training: {plain(own.title)}\n", *(f"- {plain(line)}" for line in own.lines())]
        parts += ["", "Differences are of the first training minus the second, positive where the first is better."]
        parts += [
            "",
            f"![{plain(own.group[-1])} against the cost of training]({_training_plot(own, report, folder)})\n",
        ]
    for answer in report.answers:
        table = table_of(answer)
        lines = [f"- {plain(line)}" for line in answer.lines()]
        parts += [f"## {plain(table.title)}\n", *lines, "", as_markdown(table), ""]
        if legend := caption(" ".join(cell for line in table.lines for cell in line)):
            parts.append(f"{legend}.\n")
        parts += [
            f"![{plain(answer.group[-1])} against {a}]({name})\n" for a, name in _plots(answer, report, folder).items()
        ]
    if reading.is_file():  # what people have to say of the numbers is written by hand
        parts += ["## Reading it\n", reading.read_text(encoding="utf-8").strip(), ""]
    parts.append("## How it was measured\n")
    for command in commands(good):
        text = " ".join(command["text"].replace("`", "'").split())
        parts.append(f"- `python {text}` at revision {plain(command['revision'])}: {len(command['cells'])} cells")
    dates = sorted({r.finished[:10] for r in good if r.finished})
    parts += [f"- {plain(line)}" for line in environments(good)] + [f"- {', '.join(dates)}", ""]
    compared = (
        "Verdicts are of non-inferiority: may the flexible model replace the fixed one, if it may lose the margin? "
        "Differences are flexible minus fixed, positive where the flexible one is better. "
    )
    told = compared if any(a.comparisons for a in report.answers) else ""
    parts.append(f"{told}Every number is in [rows.csv](rows.csv), every verdict in [verdicts.json](verdicts.json).")
    texts = {
        "README.md": "\n".join(parts) + "\n", "rows.csv": as_csv(report.rows),
        "verdicts.json": _verdicts(report),
    }  # fmt: skip
    _write(folder, texts)
    return folder


def latency_lines(report: Report, limit: float) -> list[str]:
    """For each table and device the best choice of which one image takes at most `limit` ms, one image a call.

    Raises: ValueError where no such latency was measured.

    Example: `print("\n".join(latency_lines(read_report([store]), 5.0)))`
    """
    single = {k: own for k, own in report.latencies.items() if any(one.batch == 1 for one in own.values())}
    if not single:
        folder = report.stores[0].folder
        raise ValueError(f"no latency was measured in {folder}; try: run_all.py latency {folder} --data-root DATA")
    lines = []
    for answer in report.answers:
        options = [c for p in answer.choices if (c := p.choice()) is not None]
        for setting, own in single.items():
            found = [latency_of(p, own) for p in answer.choices]
            costs = [None if one is None else one.per_image for one in found]
            best = answer.best and within_budget(options, answer.best, costs, limit, answer.rules)
            told = "nothing is so fast"
            if best is None and not any(found):
                told = "not measured"
            elif best is not None:
                names = [
                    f"{p.name}, {ms.shown()} ms" if ms else p.name for p, ms in zip(answer.choices, found, strict=True)
                ]
                value = answer.words.value(answer.choices[best.measured].quality)
                sure = "none can be shown" if best.cheapest is None else names[best.cheapest]
                told = f"{names[best.measured]}, {value}; {len(best.could_be) - 1} others could be best; "
                told += f"surely within the margin and fastest: {sure}"
            lines.append(f"{title(answer.group)} ({setting}): {told}")
    return lines


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        write_atomically(folder / name, functools.partial(Path.write_text, data=text, encoding="utf-8"))


def _plots(answer: Answer, report: Report, folder: Path, vector: bool = False) -> dict[str, str]:
    """Files against grid, and against MACs where they are known; by what they are against."""
    names = {}
    for against in ("grid", "macs"):
        if against == "grid" or any(p.macs for p in answer.points):
            names[against] = f"{_file(answer.group, [a.group for a in report.answers])}_{against}.png"
            save_plot(plot(answer, against), folder / names[against], vector)
    return names


def _training_plot(own: Budgets, report: Report, folder: Path, vector: bool = False) -> str:
    every = [(*b.group, b.backbone, b.view) for b in report.budgets]
    name = f"{_file((*own.group, own.backbone, own.view), every)}_training.png"
    save_plot(plot_of_training(own), folder / name, vector)
    return name


def _verdicts(report: Report) -> str:
    """Of each table; comparisons at equal cost stand with the table of the training that takes another's place."""
    pairs = [pair for own in report.budgets for pair in own.pairs]
    tables = [
        as_json(a) | {"equal_cost": [p.as_json() for p in pairs if p.one.group == a.group]} for a in report.answers
    ]
    return json.dumps(tables, indent=1) + "\n"


def _file(group: Group, every: Sequence[Group]) -> str:
    """A file name of letters, digits and dashes, for names from data cannot lead out of the folder.

    It ends in a key where it is too long, and where another of `every` would have the same.
    """
    name = _dashed(group)
    alone = sum(_dashed(other) == name for other in every) <= 1
    return name if alone and len(name.encode()) < LONGEST else f"{name[: LONGEST // 8]}-{key_of({'group': group})}"


def _dashed(group: Group) -> str:
    return "-".join("".join(c if c.isalnum() else "-" for c in part).strip("-") for part in group if part)


def report_folder(stores: Sequence[Store]) -> Path:
    """Where a report is written: in the folder itself; of several folders, in one that bears all their names."""
    if len(stores) == 1:
        return stores[0].folder / "report"
    return Path("results/reports") / "+".join(s.folder.name or "." for s in stores)


def as_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The newest successful rows as JSON."""
    return [row.to_json() for row in newest(rows)]
