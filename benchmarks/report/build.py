"""Writes the report of a run into its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.report.compare import fastest, points
from benchmarks.report.confidence import Confidence
from benchmarks.report.page import build_page
from benchmarks.report.plots import plot, save_png
from benchmarks.report.tables import as_csv, latex, markdown, title
from benchmarks.store import Row, Store, write_atomically


def write_report(store: Store, within: float = 0.01) -> Path:
    """`report/` with page.html, tables.md, tables.tex, rows.csv and a PNG of quality against grid and MACs a table.

    Raises: ValueError where the folder has no successful row.

    Example: `write_report(Store("results/runs/demo"))`
    """
    rows, folder = store.rows(), store.folder / "report"
    texts = {
        "page.html": build_page(store, within), "tables.md": markdown(rows), "tables.tex": latex(rows),
        "rows.csv": as_csv(rows),
    }  # fmt: skip
    for name, text in texts.items():
        write_atomically(folder / name, lambda path, text=text: path.write_text(text))
    confidence = Confidence(store)
    for group, choices in points(rows).items():
        for against in ("grid", "macs"):
            if against == "grid" or any(c.macs for c in choices):
                save_png(plot(choices, confidence, against, group[-1]), folder / f"{_file(group)}_{against}.png")
    return folder


def latency_lines(rows: Sequence[Row], latency: float) -> list[str]:
    """For each table the best choice that took at most `latency` ms an image in the run's own passes."""
    lines = []
    for group, choices in points(rows).items():
        best = fastest(choices, latency, choices[0].row.get("higher_is_better", True))
        told = f"{best.name}, {100 * best.quality:.1f} %, {1000 / best.rate:.2f} ms" if best else "nothing is so fast"
        lines.append(f"{title(group)}: {told}")
    return lines


def _file(group: Sequence[str]) -> str:
    """A file name of letters, digits and dashes: names from data cannot lead out of the folder."""
    return "-".join("".join(c if c.isalnum() else "-" for c in part).strip("-") for part in group if part)
