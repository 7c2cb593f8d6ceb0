"""The same weights evaluated in another way: what it changes at each grid, over the same samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.report.answers.comparisons import lines_of, why_not_compared
from benchmarks.report.answers.points import Point, joint_arm
from benchmarks.report.statistics.noninferiority import Rules, holm, p_value
from benchmarks.report.statistics.sentences import Wording, digits_of, grids_text, signed
from benchmarks.report.statistics.variance import Estimate, estimate
from benchmarks.store import Row

VERDICTS = ("better", "worse", "undecided", "the same", "neither above chance")
FOOTER = (
    "Of another evaluation: 95 % intervals per grid, of the same weights on the same samples; positive is better. "
    "Verdicts are corrected over the grids of a line, not over the lines."
)


@dataclass(frozen=True)
class Effect:
    """At one grid: the metric minus that of the usual evaluation, positive where it is better.

    Args:
        p: of a difference from 0, corrected over the grids of the view; None where nothing is tested.
        verdict: one of `VERDICTS`; "the same" is of equal samples.
    """

    difference: Estimate
    p: float | None
    verdict: str


@dataclass(frozen=True)
class ViewEffect:
    """A view of a model (a resize method, an average over grids, another option of evaluation) against its usual one.

    Args:
        view, usual: what they differ in, as it is told.
        grids: by grid. unknown: grids without a verdict, and why.
    """

    backbone: str
    train: str
    view: str
    usual: str
    grids: Mapping[str, Effect]
    unknown: Mapping[str, str]

    def line(self, words: Wording) -> str:
        """`flexivit_nano, ensemble=[12] instead of the usual evaluation: better at grid 15, +0.8 points [+0.3, +1.3].`

        Several grids of one verdict are told together, with their smallest and largest difference.
        """
        parts = []
        for verdict in VERDICTS:
            found = {grid: own.difference for grid, own in self.grids.items() if own.verdict == verdict}
            if found:
                told = _told(list(found.values()), words) if verdict in VERDICTS[:3] else ""
                parts.append(f"{verdict} at {grids_text(list(found))}{told}")
        parts += [f"no verdict at grid {grid} ({why})" for grid, why in self.unknown.items()]
        trained = "" if self.train == "-" else f", trained at {self.train}"
        hollow = " One training run." if any(own.difference.hollow for own in self.grids.values()) else ""
        return f"{self.backbone}{trained}, {self.view} instead of {self.usual}: {'; '.join(parts)}.{hollow}"

    def as_json(self) -> dict[str, Any]:
        """Differences in the metric's own unit, with 95 % intervals of each grid alone."""
        return {
            "backbone": self.backbone, "train": self.train, "view": self.view, "usual": self.usual,
            "grids": [
                {
                    "grid": grid, "verdict": own.verdict, "difference": own.difference.value,
                    "interval": list(own.difference.interval()), "p_holm": own.p, "scope": own.difference.scope,
                }
                for grid, own in self.grids.items()
            ],
            "unknown": dict(self.unknown),
        }  # fmt: skip


def view_effects(points: Sequence[Point], rules: Rules) -> list[ViewEffect]:
    """Every view of a model beside its usual one, at the grids that have both.

    The usual one is that without a name, else the first of the suite. The weights are the same, so training adds no
    noise but what differs between its runs. A verdict is of a difference from 0, Holm's correction over the grids of
    a view.

    Example: `[own.line(answer.words) for own in view_effects(answer.points, answer.rules)]`
    """
    lines = lines_of(points)
    views: dict[tuple[str, str], list[str]] = {}
    for backbone, train, view in lines:
        views.setdefault((backbone, train), []).append(view)
    found = []
    for (backbone, train), names in views.items():
        first = "" if "" in names else names[0]
        usual = lines[backbone, train, first]
        for view in names:
            own = lines[backbone, train, view]
            pairs = {grid: (own[grid], usual[grid]) for grid in own if grid in usual and view != first}
            if pairs:
                one, other = (point.row for point in next(iter(pairs.values())))
                unknown = {grid: why for grid, pair in pairs.items() if (why := _why_not(*pair))}
                known = {grid: pair for grid, pair in pairs.items() if grid not in unknown}
                told = _named(other, one) if first else "the usual evaluation"
                found.append(ViewEffect(backbone, train, _named(one, other), told, _effects(known, rules), unknown))
    return found


def _effects(pairs: Mapping[str, tuple[Point, Point]], rules: Rules) -> dict[str, Effect]:
    sign = 1 if rules.higher else -1
    differences, verdicts = {}, {}
    for grid, pair in pairs.items():
        arm = joint_arm(pair)
        assert arm is not None  # `_why_not` has looked
        differences[grid] = estimate(lambda m: sign * (m[0] - m[1]), [arm], rules.fraction)
        hashes = [(a.samples_hash, b.samples_hash) for a, b in zip(*(p.rows for p in pair), strict=True)]
        if all(a and a == b for a, b in hashes):
            verdicts[grid] = "the same"
        elif not any(rules.above_chance(estimate(lambda m, i=i: m[i], [arm], rules.fraction)) for i in range(2)):
            verdicts[grid] = "neither above chance"
    live = [grid for grid in differences if grid not in verdicts]
    adjusted = dict(zip(live, holm([p_value(differences[g]) for g in live], rules.alpha)[0].tolist(), strict=True))
    for grid, p in adjusted.items():
        better = "better" if differences[grid].value > 0 else "worse"
        verdicts[grid] = better if p <= rules.alpha else "undecided"
    return {grid: Effect(own, adjusted.get(grid), verdicts[grid]) for grid, own in differences.items()}


def _why_not(one: Point, other: Point) -> str:
    """Why two views of one model are not compared; "" where they are."""
    if why := why_not_compared(one, other):
        return why
    if [row.seed for row in one.rows] != [row.seed for row in other.rows]:
        return "they have other seeds"
    weights = [
        (getattr(a, name), getattr(b, name))
        for a, b in zip(one.rows, other.rows, strict=True) for name in ("train_key", "weights_hash")
    ]  # fmt: skip
    return "they are of other weights" if any(a and b and a != b for a, b in weights) else ""


def _named(one: Row, other: Row) -> str:
    """What a row's evaluation has that the other's has not."""
    usual = "pi"
    parts = [one.resize or usual] if (one.resize or usual) != (other.resize or usual) else []
    mine, theirs = one.view_options, other.view_options
    parts += [f"{k}={mine[k]}" for k in sorted(mine) if k not in theirs or mine[k] != theirs[k]]
    parts += [f"no {k}" for k in sorted(theirs) if k not in mine]
    return " ".join(parts) or "the same evaluation"


def _told(found: Sequence[Estimate], words: Wording) -> str:
    """The difference at a grid with its interval, or the span of the differences at several."""
    digits = digits_of(min(own.se for own in found), words)
    unit = f" {words.points}" if words.points else ""
    values = sorted(own.value for own in found)
    if len(found) == 1:
        low, high = (signed(end, words, digits) for end in found[0].interval())
        return f", {signed(values[0], words, digits)}{unit} [{low}, {high}]"
    ends = list(dict.fromkeys(signed(value, words, digits) for value in (values[0], values[-1])))
    return f" ({' to '.join(ends)}{unit})"
