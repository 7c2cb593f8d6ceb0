"""The answer of one table: verdicts, what flexibility keeps, what could be best, what is on the front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.report.answers.comparisons import (
    ModelComparison,
    ModelPenalty,
    ModelRetention,
    comparisons,
    penalties,
    retentions,
)
from benchmarks.report.answers.measurements import Measurements
from benchmarks.report.answers.points import Point, points_of, tables_of
from benchmarks.report.answers.questions import Entry, Group, title
from benchmarks.report.answers.rules import rules_of, wording_of
from benchmarks.report.one_index import OneIndex, one_index
from benchmarks.report.statistics.best import Best, find_best
from benchmarks.report.statistics.front import front_shares
from benchmarks.report.statistics.noninferiority import GridVerdict, Rules
from benchmarks.report.statistics.sentences import (
    Wording,
    best_sentence,
    footer,
    penalty_sentence,
    retention_sentence,
    sentence,
)
from benchmarks.report.views import FOOTER, ViewEffect, view_effects

AWAY = "No fixed model here was trained or evaluated near the grid that it was made for: comparisons are context alone."


@dataclass(frozen=True)
class Answer:
    """What a table says.

    Args:
        points: every choice of the table that has a value.
        places: backbone, training and column of every choice, those without a value too.
        penalties: what grids lose that were never trained.
        indexes: of each model what is found in galleries of other grids, where rows keep that.
        views: of each model what another view than the usual one changes.
        choices: those that are measured over the same samples in the usual view, of which `best` and `front` speak.
        front: share of draws in which each of `choices` is on the front of quality against MACs.
        allowance: what `best` may lose, in the unit of the metric.
    """

    group: Group
    rules: Rules
    words: Wording
    points: tuple[Point, ...]
    places: tuple[tuple[str, str, str], ...]
    comparisons: tuple[ModelComparison, ...]
    kept: tuple[ModelRetention, ...]
    penalties: tuple[ModelPenalty, ...]
    indexes: tuple[OneIndex, ...]
    views: tuple[ViewEffect, ...]
    choices: tuple[Point, ...]
    best: Best | None
    allowance: float
    front: tuple[float, ...]

    @property
    def title(self) -> str:
        return title(self.group)

    def lines(self) -> list[str]:
        """The sentences of the table: what answers, what flexibility keeps, the best choice, the unit of intervals.

        Example: `print("\n".join(answer.lines()))`
        """
        found = [self._answer_line(c, c.answer) for c in self.answering() if c.answer is not None]
        found += [retention_sentence(k.retention, k.flexible, k.train) for k in self.kept]
        found += [penalty_sentence(p.grids, p.neighbours, p.backbone, p.train, self.words) for p in self.penalties]
        found += [own.line(self.words) for own in self.indexes]
        if self.best is not None:
            found.append(self.best_line())
        if any(p.measured for p in self.points):
            found.append(self.words.unit_line())
        if not self.comparisons:
            found.append("No flexible model stands beside a fixed one that was trained and evaluated alike.")
        elif not any(c.comparison.verdicts for c in self.comparisons):
            found += sorted({f"No verdict: {why}." for c in self.comparisons for why in c.unknown.values()})
        else:
            if all(c.answering is None for c in self.comparisons):
                found.append(AWAY)
            found.append(footer(len(self.comparisons)))
        return [*found, *(own.line(self.words) for own in self.views), *([FOOTER] if self.views else [])]

    def details(self) -> list[tuple[str, list[str]]]:
        """Every comparison: its title, and a sentence for each grid."""
        found = []
        for c in self.comparisons:
            lines = [
                sentence(v, c.flexible, c.fixed, self.words, named=not i) for i, v in enumerate(c.comparison.verdicts)
            ]
            lines += [f"No verdict at grid {grid}: {why}." for grid, why in c.unknown.items()]
            found.append((f"{title_of(c)}: {c.summary() or 'no verdict'}", lines))
        return found

    def _answer_line(self, compared: ModelComparison, verdict: GridVerdict) -> str:
        trained = "" if compared.train == "-" else f"Trained at {compared.train}: "
        text = trained + sentence(verdict, compared.flexible, compared.fixed, self.words)
        others = compared.summary(but=compared.answering)
        every = " At every grid it may." if others and compared.comparison.everywhere == "yes" else ""
        return f"{text}{every}{f' Elsewhere: {others}.' if others and not every else ''}"

    def best_line(self) -> str:
        """The measured best, what could be best, and what is surely as good and cheapest."""
        choices = [c for p in self.choices if (c := p.choice()) is not None]
        return best_sentence(self.best, choices, self.allowance, self.words) if self.best else ""

    def answering(self) -> list[ModelComparison]:
        """The comparison that answers for each pair of a flexible and a fixed model."""
        return [c for c in self.comparisons if c.answer is not None]


def title_of(compared: ModelComparison) -> str:
    """`flexivit_nano for vit_nano_g8, trained at 8`."""
    trained = "" if compared.train == "-" else f", trained at {compared.train}"
    view = f", {compared.view}" if compared.view else ""
    return f"{compared.flexible} for {compared.fixed}{trained}{view}"


def answers(
    found: Sequence[Entry], margin: float | None = None, measurements: Measurements | None = None
) -> list[Answer]:
    """The answer of each table.

    Args:
        margin: what a replacement may lose, in the unit of the metric as it is shown (points for per cent); None: as
            the metric says.
        measurements: of the same rows, where they are known already.

    Example: `answers(entries([store]))[0].lines()`
    """
    known = measurements or Measurements()
    return [answer_of(table, points_of(table, known), margin) for table in tables_of(found).values()]


def answer_of(table: Sequence[Entry], points: Sequence[Point], margin: float | None = None) -> Answer:
    """The answer of one table with these choices."""
    group, rules, words = table[0].group, rules_of(table[0].row, margin), wording_of(table[0].row, points)
    usual = [p for p in points if not p.view] or list(points)
    compared = comparisons(points, rules)
    kept = [] if rules.chance is None else retentions(usual, rules.chance, rules.higher)
    measured = [p for p in usual if p.measured]
    identities = [p.identity for p in measured]
    common = max(set(identities), key=lambda i: (identities.count(i), i), default="")
    choices = [p for p in measured if p.identity == common]
    options = [c for p in choices if (c := p.choice()) is not None]
    best, allowance, front = None, 0.0, ()
    if options:
        top = (max if rules.higher else min)(p.quality for p in choices)
        allowance, _ = rules.allowance(top)
        best = find_best(options, allowance, rules.higher, rules.fraction, rules.alpha)
        front = tuple(front_shares(options, rules.higher).tolist())
    missed = penalties(usual, rules.higher)
    places = tuple(dict.fromkeys((e.backbone, e.train, e.column) for e in table))
    return Answer(
        group, rules, words, tuple(points), places, tuple(compared), tuple(kept), tuple(missed),
        tuple(one_index(table, rules.fraction)), tuple(view_effects(points, rules)), tuple(choices), best,
        allowance, front,
    )  # fmt: skip
