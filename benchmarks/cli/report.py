"""The verbs `report` and `compare`: what folders of results say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.cli.options import Trust

Margin = Annotated[
    float | None,
    typer.Option(
        "--margin", "--within", min=0,
        help="What a replacement may lose, as the metric is shown: points for per cent. Default: the metric's own.",
    ),
]  # fmt: skip
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]


def report(
    folders: Annotated[list[Path], typer.Argument(help="Folder of a run, or several for one page.")],
    margin: Margin = None,
    latency: Annotated[
        float | None, typer.Option(help="Print the best choice under so many ms, as `latency` measured them.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where it is written; default FOLDER/report, of several results/reports/A+B.")
    ] = None,
    to: Annotated[Path | None, typer.Option(help="Also README, plots and CSV to be kept, there.")] = None,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """The page, tables, verdicts and plots of a run, or of several where protocols and data agree.

    Example: run_all.py report results/runs/mini --margin 0.5
    """
    from benchmarks.report.build import as_rows, latency_lines, read_report, report_folder, write_measured, write_report
    from benchmarks.store import Store

    stores = [Store(folder, trust) for folder in dict.fromkeys(folders)]
    for store in stores:
        if not (rows := store.rows()):
            raise ValueError(f"no rows in {store.path}; run a suite with --out {store.folder} first")
        if as_json:
            print(json.dumps(as_rows(rows), indent=1))
    if as_json:
        return
    found = read_report(stores, margin)
    if latency is not None:
        print("\n".join(latency_lines(found, latency)))
        return
    for note in found.notes:
        print(f"note: {note}")
    if to is not None:
        write_measured(found, to)
    where = write_report(found, out or report_folder(stores))
    for own in found.budgets:
        print("\n".join([f"At equal cost of training, {own.title}:", *(f"- {line}" for line in own.lines()), ""]))
    for answer in found.answers:
        print("\n".join([f"{answer.title}:", *(f"- {line}" for line in answer.lines()), ""]))
    print(f"{found.markdown()}\nwritten to {where}: page.html, tables.md, tables.tex, rows.csv, verdicts.json, plots")


def compare(
    first: Annotated[str, typer.Argument(help="A backbone, or the folder of a run.")],
    second: Annotated[str, typer.Argument(help="What it may replace: another backbone, or another folder.")],
    run: Annotated[
        Path | None, typer.Option(help="Folder with both backbones; default: the one under results/runs.")
    ] = None,
    margin: Margin = None,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """May the first replace the second? At every grid that both have, with what would decide it.

    Example: run_all.py compare flexivit_nano vit_nano_g8 --run results/runs/mini --margin 0.5
    """
    from benchmarks.report.answers.pairwise import compare_backbones, compare_folders, folder_with, text_of
    from benchmarks.report.answers.questions import smoke_notes
    from benchmarks.report.answers.verdicts import pairwise_json
    from benchmarks.store import Store

    folders = [Path(name).is_dir() for name in (first, second)]
    notes: list[str] = []
    if run is None and any(folders):
        if not all(folders):
            name = second if folders[0] else first
            raise ValueError(f"{name} is no folder; compare two folders, or two backbones of one with --run FOLDER")
        stores = [Store(name, trust) for name in (first, second)]
        for store in stores:
            if not store.rows():
                raise ValueError(f"no rows in {store.path}; run a suite with --out {store.folder} first")
        found, notes = compare_folders(stores[0], stores[1], margin)
    else:
        stores = [Store(run or folder_with(first, second), trust)]
        found = compare_backbones(stores[0], first, second, margin)
    notes = [*smoke_notes([row for store in stores for row in store.rows()]), *notes]
    if as_json:
        print(json.dumps({"notes": notes, "comparisons": [pairwise_json(v) for v in found]}, indent=1))
        return
    for note in notes:
        print(f"note: {note}")
    print(text_of(found))
