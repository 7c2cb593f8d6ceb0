"""Is one schedule of grids better than another, if both cost the same? Comparisons across the lengths of training."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.report.answers.answer import Answer
from benchmarks.report.answers.comparisons import changing, compare_lines, lines_of
from benchmarks.report.answers.points import Point
from benchmarks.report.answers.questions import Group, asked_of, grid_order, title
from benchmarks.report.statistics.noninferiority import Comparison, Rules
from benchmarks.report.statistics.sentences import Shown, Wording, and_joined

LENGTH = ("steps", "warmup")  # of a recipe: what budgets differ in
NEAR = 0.01  # relative: a budget is not always a whole number of steps
WORDS = {"yes": "better", "no": "worse", "undecided": "undecided", "empty": "neither above chance"}


@dataclass(frozen=True)
class Training:
    """One way of training under all its seeds.

    Args:
        train: grid or schedule. macs: multiply-adds of one training, without heads and teachers.
        seconds: of one training, the mean over its seeds, whatever else the machine did; None where one does not tell.
        points: by grid of evaluation. group: of their table.
    """

    train: str
    steps: int
    macs: float
    seconds: float | None
    points: Mapping[str, Point]
    group: Group

    @property
    def name(self) -> str:
        return f"{self.train} ({self.steps:,} steps)" if self.steps else self.train


@dataclass(frozen=True)
class EqualCost:
    """A training in place of another of the same cost, at each grid that both were evaluated at.

    Args:
        comparison: with a margin of nothing: yes is better, no is worse.
        unknown: grids without a verdict, and why.
    """

    one: Training
    other: Training
    comparison: Comparison
    unknown: Mapping[str, str]

    def line(self, words: Wording) -> str:
        """`For about the same 44.7 TMACs of training, curriculum-cost:5,10,15 (2,679 steps) instead of 15 (625 steps):
        better at grid 5, +9.8 points [+8.1, +11.5]; undecided at grid 15, ... (3 seeds each, 5,000 pictures; ...).`"""
        parts = []
        for v in self.comparison.verdicts:
            told = f", {Shown(v, words).difference()}" if v.verdict != "empty" else ""
            parts.append(f"{WORDS[v.verdict]} at grid {v.grid}{told}")
        parts += [f"no verdict at grid {grid} ({why})" for grid, why in self.unknown.items()]
        live = [v for v in self.comparison.verdicts if v.verdict != "empty"]
        basis = f" ({Shown(live[0], words).basis})" if live else ""
        caveat = ""
        if self.comparison.hollow:
            caveat = " One training run each: this judges these files, not the schedules."
        elif any(v.difference.borrowed for v in live):
            caveat = " One of them was trained once: its training noise is taken to be that of the other."
        return (
            f"For about the same {macs_text(self.other.macs)} of training, {self.one.name} instead of "
            f"{self.other.name}: {'; '.join(parts)}{basis}.{caveat}"
        )

    def as_json(self) -> dict[str, Any]:
        """Both trainings, and at each grid what the first is instead of the second: `difference` is positive where the
        first is better, also where less is better."""
        first = next(iter(self.one.points.values()))
        return {
            "backbone": first.backbone, "view": first.view,
            "first": _training_json(self.one), "second": _training_json(self.other), "unknown": dict(self.unknown),
            "grids": [
                {
                    "grid": v.grid, "verdict": WORDS[v.verdict], "first": v.a, "second": v.b,
                    "difference": v.difference.value, "interval": list(v.interval), "p_holm": v.p_holm,
                    "scope": v.difference.scope, "seeds": list(v.difference.parts.counts),
                }
                for v in self.comparison.verdicts
            ],
        }  # fmt: skip


@dataclass(frozen=True)
class Budgets:
    """Trainings of one backbone on one question, which differ in schedule and length alone, and those of one cost."""

    group: Group
    backbone: str
    view: str
    words: Wording
    rules: Rules
    trainings: tuple[Training, ...]
    pairs: tuple[EqualCost, ...]

    @property
    def title(self) -> str:
        return f"{title(self.group)}: {f'{self.backbone} {self.view}'.strip()}"

    def lines(self) -> list[str]:
        """A sentence for each pair, and what its intervals are."""
        count = len(self.pairs)
        over = f", not over the {count} comparisons of this section" if count > 1 else ""
        return [
            *(p.line(self.words) for p in self.pairs),
            f"95 % intervals per grid; verdicts corrected within a comparison{over}.",
        ]


def budgets_of(answers: Sequence[Answer]) -> list[Budgets]:
    """Where two trainings of one backbone by different schedules cost the same.

    They may be of different tables, as a cheaper grid buys more steps; in everything but `LENGTH` and the schedule
    their recipes are equal. The one at a fixed grid is what the other is compared with, else the first of the suite.

    Example: `[line for own in budgets_of(report.answers) for line in own.lines()]`
    """
    families: dict[tuple[Any, ...], list[tuple[Answer, Training]]] = {}
    for answer in answers:
        for (backbone, train, view), points in lines_of(answer.points).items():
            training = _training(answer.group, train, points)
            if training is not None:
                group, rest = _without_length(answer.group, next(iter(points.values())))
                families.setdefault((group, backbone, view, rest), []).append((answer, training))
    found = []
    for (group, backbone, view, _), members in families.items():
        first, trainings = members[0][0], [training for _, training in members]
        words = max((answer.words for answer, _ in members), key=lambda own: own.samples)
        strict = dataclasses.replace(first.rules, margin=0.0, share=0.0)
        pairs = []
        for i, a in enumerate(trainings):
            for b in trainings[i + 1 :]:
                if a.train == b.train or abs(a.macs - b.macs) > NEAR * max(a.macs, b.macs):
                    continue
                one, other = (a, b) if changing(a.train) and not changing(b.train) else (b, a)
                compared = compare_lines(one.points, other.points, strict)
                if compared.comparison.verdicts or compared.unknown:
                    pairs.append(EqualCost(one, other, compared.comparison, compared.unknown))
        pairs.sort(key=lambda pair: changing(pair.other.train))  # stable: those with one grid first
        if pairs:
            found.append(Budgets(group, backbone, view, words, first.rules, tuple(trainings), tuple(pairs)))
    return found


def in_short(found: Sequence[Budgets]) -> str:
    """The answer of a folder that compares trainings of equal cost and no flexible model with a fixed one; "" where
    there is nothing of that.

    Example: `in_short(budgets_of(report.answers))`
    """
    verdicts = [(p, v.verdict) for own in found for p in own.pairs for v in p.comparison.verdicts]
    if not verdicts:
        return ""
    kinds = {kind: sum(v == kind for _, v in verdicts) for kind in WORDS}
    words = WORDS | {"empty": "neither is above chance"}
    told = and_joined([f"{words[kind]} in {count}" for kind, count in kinds.items() if count])
    schedules = {(p.one.train, p.other.train) for p, _ in verdicts}
    names = "one schedule of grids instead of another"
    if len(schedules) == 1:
        ((one, other),) = schedules
        names = f"{one} instead of {other}"
    pairs = [p for own in found for p in own.pairs]
    hollow = sum(p.comparison.hollow for p in pairs)
    single = " One training run each." if hollow == len(pairs) else ""
    single = single or (f" {hollow} of {len(pairs)} pairs have one training run each." if hollow else "")
    count = f"{len(verdicts)} comparison{'s' if len(verdicts) > 1 else ''}"
    return f"At equal cost of training, {names}, of {count}, grid by grid: {told}.{single}"


def macs_text(macs: float) -> str:
    """`44.7 TMACs`: three digits.

    Example: `macs_text(4.4711e13)` is "44.7 TMACs"
    """
    for size, unit in ((1e18, "EMACs"), (1e15, "PMACs"), (1e12, "TMACs"), (1e9, "GMACs")):
        if macs >= size:
            return f"{macs / size:.3g} {unit}"
    return f"{macs / 1e6:.3g} MMACs"


def _training(group: Group, train: str, points: Mapping[str, Point]) -> Training | None:
    """None where nothing is trained, or where its cost is not in the rows."""
    rows = [row for p in points.values() for row in p.rows]
    costs = {row.training.get("macs") for row in rows} - {None}  # rows of older versions do not tell it
    if train == "-" or len(costs) != 1 or not (cost := costs.pop()):
        return None
    by_seed = {row.seed: row.training.get("seconds") for row in rows}
    seconds = [s for s in by_seed.values() if s]
    mean = statistics.fmean(seconds) if len(seconds) == len(by_seed) else None
    steps = int(rows[0].training.get("steps") or rows[0].steps or 0)
    return Training(train, steps, float(cost), mean, points, group)


def _without_length(group: Group, point: Point) -> tuple[Group, tuple[tuple[str, str], ...]]:
    """The table without steps and warmup in its name, and everything else that its rows share."""
    own, (task, data, *rest) = asked_of(point.row), group
    for name in LENGTH:
        data = f" {data} ".replace(f" {name}={own.get(name)} ", " ").strip()
    asked = tuple(sorted((k, v) for k, v in own.items() if k not in LENGTH))
    return (task, data, *rest), (*asked, ("precision", str(point.row.precision)))


def _training_json(training: Training) -> dict[str, Any]:
    return {
        "train": training.train, "steps": training.steps, "macs": training.macs, "seconds": training.seconds,
        "data": training.group[1],
    }  # fmt: skip


def grids_of(found: Budgets) -> list[str]:
    """Grids that two trainings of equal cost were both evaluated at, the coarsest first."""
    grids = {g for p in found.pairs for g in p.one.points if g in p.other.points}
    return sorted(grids, key=grid_order)
