"""A flexible model against fixed ones: every comparison of a table, and the one that answers for each fixed model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backbones.grids import parse_schedule
from benchmarks.report.answers.points import Point, is_flexible, joint_arm, made_for
from benchmarks.report.answers.questions import grid_order
from benchmarks.report.statistics.noninferiority import Comparison, GridVerdict, Rules, compare
from benchmarks.report.statistics.retention import Retention, retain, untrained_penalty
from benchmarks.report.statistics.sentences import grids_text
from benchmarks.report.statistics.variance import Arm, Estimate

NEAR = 1.25  # times coarser or finer than the grid that a fixed model was made for: pictures of another size want that


@dataclass(frozen=True)
class ModelComparison:
    """A flexible model against a fixed one at every grid that both have.

    Args:
        train, fixed_train: how each was trained, "-" where nothing is; equal but where the flexible one was trained at
            changing grids.
        answering: the grid of the fixed model, where it was trained and is evaluated, if this comparison has it; the
            verdicts at others are context.
        unknown: grids without a verdict, and why.
    """

    flexible: str
    fixed: str
    train: str
    fixed_train: str
    view: str
    comparison: Comparison
    answering: str | None
    unknown: Mapping[str, str]

    @property
    def answer(self) -> GridVerdict | None:
        """The verdict at the fixed model's own grid."""
        return next((v for v in self.comparison.verdicts if v.grid == self.answering), None)

    def summary(self, but: str | None = None) -> str:
        """`yes at grids 4 and 8; no at grid 15`, without the grid `but`; "" where that is all."""
        parts = []
        for word in ("yes", "no", "undecided", "empty"):
            grids = [v.grid for v in self.comparison.verdicts if v.verdict == word and v.grid != but]
            if grids:
                parts.append(f"{word} at {grids_text(grids)}")
        return "; ".join(parts)


Lines = dict[tuple[str, str, str], dict[str, Point]]  # (backbone, train, view) -> grid -> choice


def lines_of(points: Sequence[Point]) -> Lines:
    """Choices of each trained model by grid, the coarsest first."""
    lines: Lines = {}
    for point in sorted(points, key=lambda p: grid_order(p.grid)):
        lines.setdefault((point.backbone, point.train, point.view), {})[point.grid] = point
    return lines


def comparisons(points: Sequence[Point], rules: Rules) -> list[ModelComparison]:
    """Every flexible model against every fixed one that was trained and evaluated alike.

    A flexible model that was trained at changing grids has no equal: it meets each fixed one as it was trained at its
    own grid. What is not known to be flexible or fixed is in no comparison.

    Example: `[c.answer for c in comparisons(points, Rules())]`
    """
    lines, found = lines_of(points), []
    kinds = {name: is_flexible(next(iter(own.values())).row) for (name, _, _), own in lines.items()}
    specialists = {name: specialist_grid(name, lines) for name, kind in kinds.items() if kind is False}
    for (flexible, train, view), own in lines.items():
        for (fixed, fixed_train, fixed_view), theirs in lines.items():
            if kinds[flexible] is not True or kinds[fixed] is not False or view != fixed_view:
                continue
            answering = specialists[fixed]
            if train != fixed_train and not (changing(train) and fixed_train == answering):
                continue
            grid = answering if answering in (fixed_train, None) or fixed_train == "-" else None
            found.append(compare_lines(own, theirs, rules, grid))
    return [c for c in found if c.comparison.verdicts or c.unknown]


def compare_lines(
    own: Mapping[str, Point], theirs: Mapping[str, Point], rules: Rules, answering: str | None = None
) -> ModelComparison:
    """A model in place of another at every grid that both have; choices by grid.

    Example: `compare_lines(lines[new], lines[old], Rules()).comparison.everywhere`
    """
    unknown: dict[str, str] = {}
    arms: tuple[dict[str, Arm], dict[str, Arm]] = ({}, {})
    for grid in (g for g in own if g in theirs):
        pair = own[grid], theirs[grid]
        if why := why_not_compared(*pair):
            unknown[grid] = why
            continue
        for side, point in zip(arms, pair, strict=True):
            if (arm := point.arm()) is not None:
                side[grid] = arm
    one, other = next(iter(own.values())), next(iter(theirs.values()))
    return ModelComparison(
        one.backbone, other.backbone, one.train, other.train, one.view, compare(*arms, rules), answering, unknown
    )


def why_not_compared(one: Point, other: Point) -> str:
    """Why two choices have no verdict; "" where they have one."""
    for point in (one, other):
        if not point.measured:
            return f"{point.backbone} has no interval: {point.why_not}"
    return "" if one.identity == other.identity else "they were measured over other samples"


def specialist_grid(name: str, lines: Lines) -> str | None:
    """The grid a fixed model stands for: what its weights were made for, if it was trained and evaluated there, else
    the nearest grid at which it was, if that is near (`NEAR`); None where it was not.

    A model of grid 15 that was tuned at 8 alone, as in a suite that is half done, is no specialist of grid 8.
    """
    there = [own[grid] for (backbone, train, _), own in lines.items() if backbone == name
             for grid in own if grid == train or train == "-"]  # fmt: skip
    if not there:
        return None
    wanted = made_for(there[0].row)
    grids = list(dict.fromkeys(p.grid for p in there))
    if exact := [g for g in wanted if g in grids]:
        return exact[0]
    if not wanted:
        return grids[0] if len(grids) == 1 or there[0].trained else None
    if not there[0].trained:
        return None
    sides = [max(1, grid_order(g)[0]) for g in wanted]
    away = {g: min(max(s, own) / min(s, own) for s in sides) for g in grids for own in (max(1, grid_order(g)[0]),)}
    nearest = min(grids, key=lambda g: away[g])
    return nearest if away[nearest] <= NEAR else None


@dataclass(frozen=True)
class ModelRetention:
    """Retention of one set of flexible weights, and who the specialists were, by grid."""

    flexible: str
    train: str
    retention: Retention
    specialists: Mapping[str, str]


def retentions(points: Sequence[Point], chance: float, higher: bool = True) -> list[ModelRetention]:
    """Of each flexible model over the grids that have a specialist: a fixed model trained and evaluated there.

    Where two fixed models stand for one grid, the one that it was made for is the specialist, then the first of the
    suite.
    """
    lines, found = lines_of(points), []
    standing: list[Point] = []
    fixed = dict.fromkeys(n for (n, _, _), own in lines.items() if is_flexible(next(iter(own.values())).row) is False)
    for name in fixed:
        grid = specialist_grid(name, lines)
        for train in (grid, "-"):
            point = lines.get((name, str(train), ""), {}).get(str(grid))
            if point is not None and point.measured:
                standing.append(point)
    special: dict[str, Point] = {}
    for point in sorted(standing, key=lambda p: p.grid not in made_for(p.row)):
        special.setdefault(point.grid, point)
    for (name, train, view), own in lines.items():
        grids = [g for g in own if g in special]
        if not grids or view or is_flexible(own[grids[0]].row) is not True:
            continue
        chosen = [own[g] for g in grids]
        arm, arms = joint_arm(chosen), {g: special[g].arm() for g in grids}
        costs = [p.macs for p in chosen]
        alike = {p.identity for p in (*chosen, *(special[g] for g in grids))}
        if arm is None or len(alike) != 1 or not all(costs) or any(a is None for a in arms.values()):
            continue
        kept = retain(
            arm, {g: a for g, a in arms.items() if a is not None}, [float(c or 0) for c in costs], chance, higher
        )
        if kept is not None:
            found.append(ModelRetention(name, train, kept, {g: special[g].backbone for g in grids}))
    return found


@dataclass(frozen=True)
class ModelPenalty:
    """What a model loses at grids between those of its training, by grid, and the trained neighbours of each."""

    backbone: str
    train: str
    view: str
    grids: Mapping[str, Estimate]
    neighbours: Mapping[str, tuple[str, str]]


def penalties(points: Sequence[Point], higher: bool = True) -> list[ModelPenalty]:
    """Of each model that was trained at changing grids, at every other grid between two of them that were evaluated.

    Nothing is told of a grid beyond the coarsest and the finest of the training: there is no line to compare it with.

    Example: `[p.grids for p in penalties(points)]`
    """
    found = []
    for (backbone, train, view), own in lines_of(points).items():
        trained = trained_at(train) if changing(train) else set()
        grids: dict[str, Estimate] = {}
        neighbours: dict[str, tuple[str, str]] = {}
        for grid, point in own.items():
            there = [p for g, p in own.items() if g in trained and p.macs]
            below = max((p for p in there if p.macs < (point.macs or 0)), key=lambda p: p.macs or 0, default=None)
            above = min((p for p in there if p.macs > (point.macs or 0)), key=lambda p: p.macs or 0, default=None)
            if grid in trained or not point.macs or below is None or above is None:
                continue
            three = (below, point, above)
            if (arm := joint_arm(three)) is not None:
                low, middle, high = (float(p.macs or 0) for p in three)
                grids[grid] = untrained_penalty(arm, (low, middle, high), higher)
                neighbours[grid] = (below.grid, above.grid)
        if grids:
            found.append(ModelPenalty(backbone, train, view, grids, neighbours))
    return found


def changing(train: str) -> bool:
    """Is this a schedule of several grids, and not a grid or "-"?"""
    return train != "-" and not train.replace("x", "").isdigit()


def trained_at(train: str) -> set[str]:
    """Grids of a schedule, as they are named in rows; none where it cannot be read.

    Example: `trained_at("random:4,8")` is `{"4", "8"}`
    """
    try:
        return {str(h) if h == w else f"{h}x{w}" for h, w in parse_schedule(train).grids}
    except ValueError:
        return set()
