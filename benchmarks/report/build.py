"""Writes the report of a run into its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.report.compare import fastest, points
from benchmarks.report.confidence import Confidence
from benchmarks.report.page import answer, build_page, commands, environments
from benchmarks.report.plots import plot, save_png
from benchmarks.report.tables import as_csv, cells, latex, markdown, newest, table, title
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
        write_atomically(folder / name, lambda path, text=text: path.write_text(text, encoding="utf-8"))
    confidence = Confidence(store)
    for group, choices in points(rows).items():
        for against in ("grid", "macs"):
            if against == "grid" or any(c.macs for c in choices):
                save_png(plot(choices, confidence, against, group[-1]), folder / f"{_file(group)}_{against}.png")
    return folder


def write_measured(store: Store, folder: Path, within: float = 0.01) -> Path:
    """What is kept of a run for others: README.md with answer, tables, plots, commands and machine, and rows.csv.

    `reading.md` in that folder is taken in where it lies there. Neither pictures nor weights: they may be somebody's.

    Raises: ValueError where the folder has no successful row.

    Example: `write_measured(Store("results/runs/mini"), Path("results/measured/mini"))`
    """
    rows, confidence = store.rows(), Confidence(store)
    good = newest(rows)
    if not good:
        raise ValueError(f"no successful row in {store.path}")
    folder.mkdir(parents=True, exist_ok=True)
    reading = folder / "reading.md"
    texts, parts = cells(rows), [f"# {good[-1].get('suite')}\n"]
    for group, choices in points(rows).items():
        higher = choices[0].row.get("higher_is_better", True)
        grids, lines = texts[group]
        parts += [f"## {title(group)}\n", *(f"- {a}" for a in answer(choices, confidence, group[-1], higher, within))]
        parts += ["", table(grids, lines), ""]
        for against in ("grid", "macs"):
            if against == "grid" or any(c.macs for c in choices):
                name = f"{_file(group)}_{against}.png"
                save_png(plot(choices, confidence, against, group[-1]), folder / name)
                parts.append(f"![{group[-1]} against {against}]({name})\n")
    if reading.is_file():  # what people have to say of the numbers is written by hand
        parts += ["## Reading it\n", reading.read_text(encoding="utf-8").strip(), ""]
    parts.append("## How it was measured\n")
    for command in commands(good):
        parts.append(f"- `python {command['text']}` at revision {command['revision']}: {len(command['cells'])} cells")
    dates = sorted({r["finished"][:10] for r in good if r.get("finished")})
    parts += [f"- {line}" for line in environments(good)] + [f"- {', '.join(dates)}", ""]
    parts.append(
        "“Equal within noise”: the 95 % interval of the difference, a paired bootstrap over the samples of the split, "
        "holds zero; no difference was shown, which is not to say that there is none. It is not corrected for many "
        "comparisons and leaves other seeds out. Several seeds are given as mean ± half the range. The best choice is "
        "named after the fact. Every number is in [rows.csv](rows.csv)."
    )
    write_atomically(folder / "README.md", lambda path: path.write_text("\n".join(parts) + "\n", encoding="utf-8"))
    write_atomically(folder / "rows.csv", lambda path: path.write_text(as_csv(rows), encoding="utf-8"))
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
