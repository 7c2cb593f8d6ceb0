"""Quality against grid and against cost: a line for each backbone and training grid, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report.answers.answer import Answer
from benchmarks.report.answers.points import Point, is_flexible
from benchmarks.report.page.curves import colours
from benchmarks.report.statistics.front import FAINT, SOLID
from benchmarks.report.tables import half_width

STYLES = ("-", "--", ":", "-.")
MARKS = ("o", "s", "^", "D")
INK, FAINT_INK = "#1b1b1b", "#d5d5d5"
AXES = {"grid": "patches a side", "macs": "GMACs an image"}
WIDTH, HEIGHT = 5.0, 3.1  # inches, without the legend


def plot(answer: Answer, against: str) -> Any:
    """A matplotlib figure, 5 inches wide, of quality against `grid` or `macs`; a long legend makes it higher.

    Bars are 95 % intervals over samples and training runs; open marks stand for a single run. Against cost, marks are
    solid where a choice is on the front in half of the draws, and faint where it is in fewer than 5 %.
    Example: `plot(answers(entries([store]))[0], "grid").savefig("top1.png")`
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    choices, scale = [p for p in answer.points if not p.view] or answer.points, answer.words.scale
    shares = dict(zip((p.name for p in answer.choices), answer.front, strict=True))
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(c.backbone for c in choices))
    trains = list(dict.fromkeys(c.train for c in choices))
    kinds = {n: is_flexible(next(c.row for c in choices if c.backbone == n)) for n in names}
    flexible, drawn = [n for n in names if kinds[n]], colours(kinds)
    for name in (*flexible, *(n for n in names if n not in flexible)):
        for number, train in enumerate(trains):
            own = [(_place(c, against), c) for c in choices if (c.backbone, c.train) == (name, train)]
            line = sorted(((x, c) for x, c in own if x is not None), key=lambda pair: pair[0])
            if not line:
                continue
            label = name if train == "-" else f"{name}, trained at {train}"
            colour, mark = drawn[name], MARKS[number % 4]
            values = np.array([scale * c.quality for _, c in line])
            above = np.array([scale * (half_width(answer, c) or 0.0) for _, c in line])
            # no fraction is less than none
            below = np.minimum(above, values.clip(0)) if answer.rules.fraction else above
            axes.errorbar(
                [x for x, _ in line], values, [below, above], label=label, color=colour,
                linestyle=STYLES[number % 4], marker=mark, markersize=0, linewidth=2.2 if name in flexible else 1.4,
                elinewidth=0.8, capsize=2,
            )  # fmt: skip
            for x, c in line:
                share = 1.0 if against == "grid" else shares.get(c.name, 0.0)
                alpha = 1.0 if share >= SOLID else 0.6 if share >= FAINT else 0.25
                axes.plot(
                    x, scale * c.quality, marker=mark, markersize=5, color=colour, alpha=alpha, linestyle="none",
                    fillstyle="full" if len(c.rows) > 1 or not c.trained else "none",
                )  # fmt: skip
    axes.set_xlabel(AXES[against], color=INK)
    unit = f" in {answer.words.unit}" if answer.words.unit else ""
    axes.set_ylabel(verbatim(f"{answer.group[-1]}{unit}"), color=INK)
    if against != "grid":
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xticks(sorted({side for c in choices if (side := _place(c, "grid")) is not None}))
    axes.tick_params(colors=INK, which="both")
    axes.grid(color=FAINT_INK, linewidth=0.5)
    for spine in axes.spines.values():
        spine.set_color(FAINT_INK)
    add_legend(figure, *axes.get_legend_handles_labels())
    return figure


def add_legend(figure: Any, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Below a plot of `HEIGHT`, in as many columns as the longest label lets stand beside each other.

    Smaller where even one column is too wide.
    """
    if not labels:
        return
    width = float(figure.get_figwidth())
    longest, size, room = max(map(len, labels)), 8.0, 72 * width - 12
    needed = longest * 0.6 * size + 4 * size  # points: letters, and the sample of the line
    columns = max(1, min(3, len(labels), int(room // needed)))
    size = min(size, size * room / needed)
    figure.set_size_inches(width, HEIGHT + math.ceil(len(labels) / columns) * 1.45 * size / 72 + 0.1)
    figure.legend(
        handles,
        [verbatim(t) for t in labels],
        loc="outside lower center",
        ncols=columns,
        fontsize=size,
        labelcolor=INK,
        frameon=False,
    )


def verbatim(text: str) -> str:
    """A name as it is: matplotlib reads what stands between dollars as mathematics."""
    return text.replace("$", r"\$")


def _place(point: Point, against: str) -> float | None:
    if against == "grid":
        sides = [int(s) for s in point.grid.split("x")]
        return sum(sides) / len(sides)
    return None if point.macs is None else point.macs / 1e9


def save_plot(figure: Any, path: Path, vector: bool = False) -> None:
    """As PNG on white; with `vector` also as PDF for papers, without the date: the same rows give the same file."""
    figure.savefig(path, dpi=150, facecolor="white")
    if vector:
        figure.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None})
