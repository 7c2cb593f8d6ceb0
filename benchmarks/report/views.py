"""The same weights evaluated in another way: what it changes at each grid, over the same samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.report.answers.comparisons import lines_of
from benchmarks.report.answers.points import Point, joint_arm
from benchmarks.report.statistics.noninferiority import Rules, holm, p_value
from benchmarks.report.statistics.sentences import Wording, grids_text
from benchmarks.report.statistics.variance import Estimate, estimate

VERDICTS = ("better", "worse", "undecided", "the same", "neither above chance")


@dataclass(frozen=True)
class ViewEffect:
    """A view of a model (a resize method, an average over grids, another option of evaluation) against its usual one.

    Args:
        differences: by grid, the view's metric minus the usual one's, positive where the view is better; paired over
            samples and training runs.
        verdicts: by grid, one of `VERDICTS`, corrected over the grids; "the same" is of equal samples.
    """

    backbone: str
    train: str
    view: str
    differences: Mapping[str, Estimate]
    verdicts: Mapping[str, str]

    def line(self, words: Wording) -> str:
        """`flexivit_nano, ensemble=[12] instead of the usual evaluation: better at grid 15, +0.8 points [+0.3, +1.3].`

        Several grids of one verdict are told together, with their smallest and largest difference.
        """
        parts = []
        for verdict in VERDICTS:
            grids = [grid for grid, own in self.verdicts.items() if own == verdict]
            if grids:
                parts.append(
                    f"{verdict} at {grids_text(grids)}{self._by(grids, words) if verdict in VERDICTS[:3] else ''}"
                )
        trained = "" if self.train == "-" else f", trained at {self.train}"
        hollow = " One training run." if any(own.hollow for own in self.differences.values()) else ""
        return f"{self.backbone}{trained}, {self.view} instead of the usual evaluation: {'; '.join(parts)}.{hollow}"

    def _by(self, grids: Sequence[str], words: Wording) -> str:
        def signed(value: float) -> str:
            return f"{words.scale * value:+.{words.digits}f}"

        unit = f" {words.points}" if words.points else ""
        found = [self.differences[grid] for grid in grids]
        if len(found) == 1:
            low, high = found[0].interval()
            return f", {signed(found[0].value)}{unit} [{signed(low)}, {signed(high)}]"
        values = sorted(own.value for own in found)
        return f" ({signed(values[0])} to {signed(values[-1])}{unit})"

    def as_json(self) -> dict[str, Any]:
        """Differences in the metric's own unit, with 95 % intervals of each grid alone."""
        grids = [
            {"grid": grid, "verdict": self.verdicts[grid], "difference": own.value, "interval": list(own.interval())}
            for grid, own in self.differences.items()
        ]
        return {"backbone": self.backbone, "train": self.train, "view": self.view, "grids": grids}


def view_effects(points: Sequence[Point], rules: Rules) -> list[ViewEffect]:
    """Every view of a model beside its usual one, at the grids that have both over the same samples.

    The weights are the same, so training adds no noise but what differs between its runs. A verdict is of a difference
    from 0, Holm's correction over the grids of a view.

    Example: `[own.line(answer.words) for own in view_effects(answer.points, answer.rules)]`
    """
    lines, found = lines_of(points), []
    for (backbone, train, view), own in lines.items():
        usual = lines.get((backbone, train, ""), {}) if view else {}
        pairs = {grid: (point, usual[grid]) for grid, point in own.items() if grid in usual}
        differences, verdicts = {}, {}
        for grid, pair in pairs.items():
            arm, sign = joint_arm(pair), 1 if rules.higher else -1
            if arm is None:
                continue
            differences[grid] = estimate(lambda m, sign=sign: sign * (m[0] - m[1]), [arm], rules.fraction)
            if all(_same(a.samples_hash, b.samples_hash) for a, b in zip(*(p.rows for p in pair), strict=True)):
                verdicts[grid] = "the same"
            elif not any(rules.above_chance(estimate(lambda m, i=i: m[i], [arm], rules.fraction)) for i in range(2)):
                verdicts[grid] = "neither above chance"
        live = [grid for grid in differences if grid not in verdicts]
        adjusted, _ = holm([p_value(differences[grid]) for grid in live], rules.alpha)
        for grid, p in zip(live, adjusted, strict=True):
            better = "better" if differences[grid].value > 0 else "worse"
            verdicts[grid] = better if p <= rules.alpha else "undecided"
        if differences:
            found.append(ViewEffect(backbone, train, view, differences, {grid: verdicts[grid] for grid in differences}))
    return found


def _same(one: str | None, other: str | None) -> bool:
    return bool(one) and one == other
