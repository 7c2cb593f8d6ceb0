"""Quality against grid and against cost: a line for each backbone and training grid, with intervals."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report.compare import Point, is_flexible
from benchmarks.report.confidence import Confidence

# Okabe and Ito: told apart by colour-blind readers; the flexible models take the strongest
FLEXIBLE, FIXED = ("#0072B2", "#56B4E9"), ("#D55E00", "#009E73", "#CC79A7", "#E69F00")
STYLES = ("-", "--", ":", "-.")
MARKS = ("o", "s", "^", "D")
THEMES = {"light": ("#1b1b1b", "#d5d5d5"), "dark": ("#e8e8e8", "#4a4a4a")}
AXES = {"grid": "patches a side", "macs": "GMACs an image", "rate": "images/s in this run"}


def plot(choices: Sequence[Point], confidence: Confidence, against: str, metric: str, theme: str = "light") -> Any:
    """A matplotlib figure, 5 x 3.6 inches, of quality in % against `grid`, `macs` or `rate`.

    Bars are 95 % intervals over samples. Transparent, so that it lies on light and dark pages.

    Example: `plot(points(rows)[group], Confidence(store), "grid", "top1").savefig("top1.png")`
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    ink, faint = THEMES[theme]
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(c.backbone for c in choices))
    trains = list(dict.fromkeys(c.train for c in choices))
    flexible = [n for n in names if is_flexible(n)]
    fixed = [n for n in names if n not in flexible]
    colours = {n: FLEXIBLE[i % 2] for i, n in enumerate(flexible)} | {n: FIXED[i % 4] for i, n in enumerate(fixed)}
    for name in (*flexible, *fixed):
        for number, train in enumerate(trains):
            line = [(_place(c, against), c) for c in choices if (c.backbone, c.train) == (name, train)]
            line = sorted(((x, c) for x, c in line if x is not None), key=lambda p: p[0])
            if not line:
                continue
            bars = [confidence.interval(c.row) or (c.quality, c.quality) for _, c in line]
            below = [max(0.0, 100 * (c.quality - low)) for (_, c), (low, _) in zip(line, bars, strict=True)]
            above = [max(0.0, 100 * (high - c.quality)) for (_, c), (_, high) in zip(line, bars, strict=True)]
            label = name if train == "-" else f"{name}, trained at {train}"
            axes.errorbar(
                [x for x, _ in line], [100 * c.quality for _, c in line], [below, above], label=label,
                color=colours[name], linestyle=STYLES[number % 4], marker=MARKS[number % 4], markersize=4,
                linewidth=2.2 if name in flexible else 1.4, elinewidth=0.8, capsize=2,
            )  # fmt: skip
    axes.set_xlabel(AXES[against], color=ink)
    axes.set_ylabel(f"{metric} in %", color=ink)
    if against != "grid":
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xticks(sorted({x for c in choices if (x := _place(c, "grid")) is not None}))
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
