"""The answer of one table: verdicts, what flexibility keeps, what could be best, what is on the front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.report.answers.comparisons import Compared, Kept, comparisons, retentions
from benchmarks.report.answers.measurements import Measurements
from benchmarks.report.answers.points import Point, points_of
from benchmarks.report.answers.questions import Entry, Group
from benchmarks.report.answers.rules import rules_of, wording_of
from benchmarks.report.statistics.best import Best, find_best
from benchmarks.report.statistics.front import front_shares
from benchmarks.report.statistics.noninferiority import Rules
from benchmarks.report.statistics.sentences import (
    Wording,
    best_sentence,
    footer,
    retention_sentence,
    sentence,
)

@dataclass(frozen=True)
class Answer:
    """What a table says.

    Args:
        points: every choice of the table.
        choices: those that are measured over the same samples in the usual view, of which `best` and `front` speak.
        front: share of draws in which each of `choices` is on the front of quality against MACs.
        allowance: what `best` may lose, in the unit of the metric.
    """

    group: Group
    rules: Rules
    words: Wording
    points: tuple[Point, ...]
    comparisons: tuple[Compared, ...]
    kept: tuple[Kept, ...]
    choices: tuple[Point, ...]
    best: Best | None
    allowance: float
    front: tuple[float, ...]

    def verdicts(self, compared: Compared) -> list[str]:
        """A sentence for each grid of a comparison; the first names both models."""
        lines, answer = [], compared.answer
        ordered = sorted(compared.comparison.verdicts, key=lambda v: v is not answer)
        for place, verdict in enumerate(ordered):
            lines.append(sentence(verdict, compared.flexible, compared.fixed, self.words, named=place == 0))
        lines += [f"No verdict at grid {grid}: {why}." for grid, why in compared.unknown.items()]
        return lines

    def lines(self) -> list[str]:
        """All sentences of the table, in the order of reading."""
        found = [f"{title_of(c)}: {line}" for c in self.comparisons for line in self.verdicts(c)[:1]]
        found += [retention_sentence(k.retention, k.flexible) for k in self.kept]
        if self.best is not None:
            found.append(self.best_line())
        if not self.comparisons:
            found.append("No flexible model stands beside a fixed one that was trained and evaluated alike.")
        elif any(c.comparison.verdicts for c in self.comparisons):
            found.append(footer(len(self.comparisons)))
        return found

    def best_line(self) -> str:
        """The measured best, what could be best, and what is surely as good and cheapest."""
        choices = [c for p in self.choices if (c := p.choice()) is not None]
        return best_sentence(self.best, choices, self.allowance, self.words) if self.best else ""

    def answering(self) -> list[Compared]:
        """The comparison that answers for each pair of a flexible and a fixed model."""
        return [c for c in self.comparisons if c.answer is not None]


def title_of(compared: Compared) -> str:
    """`flexivit_nano for vit_nano_g8, trained at 8`."""
    trained = "" if compared.train == "-" else f", trained at {compared.train}"
    view = f", {compared.view}" if compared.view else ""
    return f"{compared.flexible} for {compared.fixed}{trained}{view}"


def answers(found: Sequence[Entry], measurements: Measurements, margin: float | None = None) -> list[Answer]:
    """The answer of each table.

    Args:
        margin: what a replacement may lose, in the unit of the metric as it is shown (points for per cent); None: as
            the metric says.

    Example: `answers(entries(store.rows()), Measurements.of_store(store))[0].lines()`
    """
    return [answer_of(group, own, margin) for group, own in points_of(found, measurements).items()]


def answer_of(group: Group, points: Sequence[Point], margin: float | None = None) -> Answer:
    """The answer of one table with these choices."""
    rules, words = rules_of(points[0].row, margin), wording_of(points)
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
    return Answer(group, rules, words, tuple(points), tuple(compared), tuple(kept), tuple(choices), best, allowance, front)
