"""Quality against what the training cost: a panel for each grid of evaluation, a line for each schedule."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.report.plots import FAINT_INK, HEIGHT, INK, MARKS, WIDTH, add_legend, verbatim
from benchmarks.report.statistics.variance import Estimate
from benchmarks.report.training.equal_cost import Budgets, grids_of

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito
PANELS = 4  # of more grids, evenly many are drawn


def plot_of_training(found: Budgets) -> Any:
    """A matplotlib figure of quality against the multiply-adds of training.

    Bars are 95 % intervals over samples and training runs; open marks stand for a single run.
    Example: `plot_of_training(budgets_of(answers)[0]).savefig("budgets.png")`
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    grids, scale = grids_of(found), found.words.scale
    if len(grids) > PANELS:
        grids = [grids[i * (len(grids) - 1) // (PANELS - 1)] for i in range(PANELS)]
    costs = sorted(t.macs / 1e12 for t in found.trainings)
    schedules = list(dict.fromkeys(t.train for t in found.trainings))
    figure = Figure(figsize=(max(WIDTH, 2.6 * len(grids)), HEIGHT), layout="constrained")
    panels = figure.subplots(1, len(grids), sharey=True, squeeze=False)[0]
    for panel, grid in zip(panels, grids, strict=True):
        for number, schedule in enumerate(schedules):
            line = sorted(
                (t for t in found.trainings if t.train == schedule and grid in t.points), key=lambda t: t.macs
            )
            if not line:
                continue
            points = [t.points[grid] for t in line]
            values = np.array([scale * p.quality for p in points])
            above = np.array([_half(p.estimate(found.rules.fraction), scale) for p in points])
            below = (
                np.minimum(above, values.clip(0)) if found.rules.fraction else above
            )  # no fraction is less than none
            colour, mark = COLOURS[number % len(COLOURS)], MARKS[number // len(COLOURS) % len(MARKS)]
            panel.errorbar(
                [t.macs / 1e12 for t in line], values, [below, above], color=colour, marker=mark, markersize=5,
                linewidth=1.6, elinewidth=0.8, capsize=2, label=f"trained at {schedule}",
                fillstyle="full" if all(len(p.rows) > 1 for p in points) else "none",
            )  # fmt: skip
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.set_xlim(costs[0] / 2, costs[-1] * 2)
        panel.set_title(f"grid {grid}", color=INK, fontsize=9)
        panel.set_xlabel("TMACs of training", color=INK)
        panel.tick_params(colors=INK, which="both")
        panel.grid(color=FAINT_INK, linewidth=0.5)
        for spine in panel.spines.values():
            spine.set_color(FAINT_INK)
    unit = f" in {found.words.unit}" if found.words.unit else ""
    panels[0].set_ylabel(verbatim(f"{found.group[-1]}{unit}"), color=INK)
    every = {
        label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    add_legend(figure, list(every.values()), list(every))
    return figure


def _half(found: Estimate | None, scale: float) -> float:
    return 0.0 if found is None else scale * found.half_width()
