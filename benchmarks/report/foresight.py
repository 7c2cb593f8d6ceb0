"""Before anything is trained: which pictures and seeds would decide a margin."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.engine.suite import Suite, cell_task
from benchmarks.report.answers.answer import answers
from benchmarks.report.answers.questions import entries
from benchmarks.report.statistics.jackknife import MAX_GROUPS
from benchmarks.report.statistics.power import decidable, needs_samples, needs_seeds, rescaled
from benchmarks.report.statistics.sentences import rounded_up
from benchmarks.report.statistics.variance import Parts
from benchmarks.store import Store

MORE_SEEDS = (5, 8, 12, 20, 30, 50, 100)


@dataclass(frozen=True)
class Assumptions:
    """What is taken for a task that has no rows yet, for metrics from 0 to 1.

    Args:
        discordant: share of the samples in which two models differ.
        seed_sd: standard deviation of the metric between training runs, as a fraction.
    """

    discordant: float = 0.2
    seed_sd: float = 0.01

    def parts(self, samples: int, seeds: int, trained: bool = True) -> Parts:
        """Components of the difference of two models alike.

        Example: `Assumptions(0.2, 0.0).parts(1000, 1).samples` is 0.0002
        """
        noise = self.seed_sd**2 / seeds if trained else 0.0
        lenders = (0, 1) if trained and seeds > 1 else (-1, -1)
        own = noise if seeds > 1 else 0.0  # of a single run nothing is seen: it judges files
        groups = max(2, min(MAX_GROUPS, samples))
        return Parts(self.discordant / samples, (own, own), (0.0, 0.0), (seeds, seeds), lenders, groups, samples)


@dataclass(frozen=True)
class Foresight:
    """What a suite's table could decide.

    Args:
        samples, seeds, grids: as the suite has them; `samples` None where the card fixes no number.
        basis: "rows" where the variances are those of stored rows of the task, else "assumed".
        decidable: the margin that would be decided for equal models in 80 of 100 cases, in the unit of the metric.
        needs_seeds, needs_samples: what would decide the margin asked for, each alone; None where it alone would not,
            or where it is decided already.
        together: seeds and samples that decide it where neither alone would.
        trained: do seeds apply?
    """

    name: str
    samples: int | None
    seeds: int
    grids: int
    margin: float
    basis: str
    trained: bool
    scale: float
    unit: str
    decidable: float | None = None
    needs_seeds: int | None = None
    needs_samples: int | None = None
    together: tuple[int, int] | None = None

    def line(self) -> str:
        """One line for a terminal."""
        if self.samples is None:
            return f"{self.name}: the number of its samples is not known before the data is there"
        points = "points" if self.unit == "%" else self.unit
        own = f"{self.seeds} seeds, " if self.trained and self.seeds > 1 else "one run, " if self.trained else ""
        text = f"{self.name}: {own}{self.samples:,} samples, {self.grids} grid{'s' * (self.grids > 1)} ({self.basis})"
        if self.decidable is None:
            return f"{text}: nothing is known of this metric's spread; no rows of the task are there yet"
        text += f" could decide a margin of {self.scale * self.decidable:.1f} {points}".rstrip()
        if self.trained and self.seeds < 2:
            text += ", of these files and not of the backbones"
        asked = f"{self.scale * self.margin:g}"
        if self.decidable <= self.margin:
            return f"{text}: enough for {asked}"
        ways = [f"{self.needs_seeds:,} seeds"] if self.needs_seeds else []
        ways += [f"{rounded_up(self.needs_samples):,} samples"] if self.needs_samples else []
        if not ways and self.together:
            ways.append(f"{self.together[0]:,} seeds and {rounded_up(self.together[1]):,} samples together")
        return f"{text}; for {asked}: {' or '.join(ways) or 'nothing that is looked for would do'}"

    def as_json(self) -> dict[str, Any]:
        fields = ("name", "samples", "seeds", "grids", "margin", "basis", "trained", "decidable", "needs_seeds")
        return {k: getattr(self, k) for k in (*fields, "needs_samples", "together")}


def foresee(
    suite: Suite, store: Store, data_root: Any, margin: float, assumed: Assumptions | None = None
) -> list[Foresight]:
    """For each table of a suite what it could decide, from stored rows of the task or from assumptions.

    Args:
        store: folder whose rows of the same task and data give the variances, where there are any.
        margin: as the metric is shown: points for per cent.

    Raises: ValueError for a margin that is not above 0.

    Example: `[f.line() for f in foresee(suite, Store("results/runs/mini"), "data", margin=1.0)]`
    """
    if not margin > 0:
        raise ValueError(f"a margin to be decided must be above 0, not {margin:g}")
    assumed = assumed or Assumptions()
    known = _known_parts(store)
    tables: dict[tuple[str, str], list[Any]] = {}
    for cell in suite.cells:
        for split in cell.splits:
            data = " ".join(f"{k}={v}" if k != "data" else str(v) for k, v in cell.options.items())
            tables.setdefault((f"{cell.task} {data}".strip(), split), []).append(cell)
    found = []
    for (name, split), cells in tables.items():
        task = cell_task(cells[0], data_root)
        metric = task.card.metric
        scale, samples = metric.scale or 1.0, task.card.splits.get(split)
        seeds, trained = len({c.seed for c in cells}), cells[0].train is not None
        grids = max(len({v.grid for v in c.views}) for c in cells)
        stored = known.get((cells[0].task, str(cells[0].options.get("data", "")), split))
        if samples is None and stored is not None:
            samples = stored.units
        basis, parts = "rows" if stored else "assumed", None
        if samples and stored is not None:
            parts = rescaled(stored, samples, seeds if trained and seeds > 1 and max(stored.seeds) > 0 else None)
        elif samples and metric.unit == "%":
            parts = assumed.parts(samples, seeds, trained)
        told = (f"{name}, {split}", samples, seeds, grids, margin / scale, basis, trained, scale, metric.unit)
        if parts is None:
            found.append(Foresight(*told))
            continue
        asked = (parts, margin / scale, grids)
        by_seeds = needs_seeds(*asked) if trained and seeds > 1 else None
        by_samples = needs_samples(*asked)
        both = _together(*asked) if trained and by_seeds is None and by_samples is None else None
        found.append(Foresight(*told, decidable(parts, grids), by_seeds, by_samples, both))
    return found


def _together(parts: Parts, margin: float, grids: int) -> tuple[int, int] | None:
    """The fewest of some numbers of seeds with which more samples would decide the margin."""
    if max(parts.seeds) == 0:
        return None
    for seeds in (n for n in MORE_SEEDS if n > max(parts.counts)):
        samples = needs_samples(rescaled(parts, parts.units, seeds), margin, grids)
        if samples is not None:
            return seeds, samples
    return None


def _known_parts(store: Store) -> dict[tuple[str, str, str], Parts]:
    """The median comparison of each task, data set and split of a folder, by its standard error."""
    found: dict[tuple[str, str, str], list[Parts]] = {}
    whole = [entry for entry in entries([store]) if not entry.row.limit] if store.path.exists() else []
    for answer in answers(whole):
        row = answer.points[0].row if answer.points else None
        if row is not None:
            own = [v.difference.parts for c in answer.comparisons for v in c.comparison.verdicts]
            found.setdefault((row.task, str(row.options.get("data", "")), row.split or ""), []).extend(own)
    return {key: _median(parts) for key, parts in found.items() if parts}


def _median(parts: Sequence[Parts]) -> Parts:
    middle = statistics.median_low([p.total for p in parts])
    return next(p for p in parts if p.total == middle)
