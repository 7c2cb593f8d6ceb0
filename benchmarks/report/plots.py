"""Quality against grid and against cost: a line for each backbone and training grid, with intervals."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from benchmarks.report.answers.answer import Answer
from benchmarks.report.answers.points import Point, is_flexible
from benchmarks.report.statistics.front import FAINT, SOLID
from benchmarks.report.tables import half_width

# Okabe and Ito: told apart by colour-blind readers; the flexible models take the strongest
FLEXIBLE, FIXED = ("#0072B2", "#56B4E9"), ("#D55E00", "#009E73", "#CC79A7", "#E69F00")
STYLES = ("-", "--", ":", "-.")
MARKS = ("o", "s", "^", "D")
THEMES = {"light": ("#1b1b1b", "#d5d5d5"), "dark": ("#e8e8e8", "#4a4a4a")}
AXES = {"grid": "patches a side", "macs": "GMACs an image", "rate": "images/s in this run"}


def plot(answer: Answer, against: str, theme: str = "light") -> Any:
    """A matplotlib figure, 5 x 3.6 inches, of quality against `grid`, `macs` or `rate`.

    Bars are 95 % intervals over samples and training runs; open marks stand for a single run. Against cost, marks are
    solid where a choice is on the front in half of the draws, and faint where it is in fewer than 5 %. Transparent, so
    that it lies on light and dark pages.

    Example: `plot(answers(entries([store]))[0], "grid").savefig("top1.png")`
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    ink, faint = THEMES[theme]
    choices, scale = [p for p in answer.points if not p.view] or answer.points, answer.words.scale
    shares = dict(zip((p.name for p in answer.choices), answer.front, strict=True))
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(c.backbone for c in choices))
    trains = list(dict.fromkeys(c.train for c in choices))
    flexible = [n for n in names if is_flexible(next(c.row for c in choices if c.backbone == n))]
    fixed = [n for n in names if n not in flexible]
    colours = {n: FLEXIBLE[i % 2] for i, n in enumerate(flexible)} | {n: FIXED[i % 4] for i, n in enumerate(fixed)}
    for name in (*flexible, *fixed):
        for number, train in enumerate(trains):
            own = [(_place(c, against), c) for c in choices if (c.backbone, c.train) == (name, train)]
            line = sorted(((x, c) for x, c in own if x is not None), key=lambda pair: pair[0])
            if not line:
                continue
            label = name if train == "-" else f"{name}, trained at {train}"
            colour, mark = colours[name], MARKS[number % 4]
            axes.errorbar(
                [x for x, _ in line], [scale * c.quality for _, c in line],
                [scale * (half_width(answer, c) or 0.0) for _, c in line], label=label, color=colour,
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
    axes.set_xlabel(AXES[against], color=ink)
    unit = f" in {answer.words.unit}" if answer.words.unit else ""
    axes.set_ylabel(f"{answer.group[-1]}{unit}", color=ink)
    if against != "grid":
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xticks(sorted({side for c in choices if (side := _place(c, "grid")) is not None}))
    axes.tick_params(colors=ink, which="both")
    axes.grid(color=faint, linewidth=0.5)
    for spine in axes.spines.values():
        spine.set_color(faint)
    columns = 2 if len(names) * len(trains) > 2 else 1
    figure.legend(loc="outside lower center", ncols=columns, fontsize=8, labelcolor=ink, frameon=False)
    return figure


def _place(point: Point, against: str) -> float | None:
    if against == "grid":
        sides = [int(s) for s in point.grid.split("x")]
        return sum(sides) / len(sides)
    value = point.macs if against == "macs" else point.rate
    return None if value is None else value / 1e9 if against == "macs" else value


def svg(figure: Any) -> str:
    """The figure as SVG text without the date: the same rows give the same file."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "flexivit", "svg.fonttype": "path"}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return out.getvalue()


def save_png(figure: Any, path: Path) -> None:
    """White ground: such files are looked at outside of the page."""
    figure.savefig(path, dpi=150, facecolor="white")
