"""One model in place of another, as asked for: two backbones of a folder, or two folders."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report.answers.agreement import disagreements
from benchmarks.report.answers.answer import title_of
from benchmarks.report.answers.comparisons import Lines, ModelComparison, compare_lines, lines_of
from benchmarks.report.answers.measurements import Measurements
from benchmarks.report.answers.points import Point, is_flexible, points_of, tables_of
from benchmarks.report.answers.questions import Entry, Group, entries, title
from benchmarks.report.answers.rules import rules_of, wording_of
from benchmarks.report.statistics.sentences import Wording, footer, sentence
from benchmarks.store import Store

EVERYWHERE = {
    "yes": "At every grid it may.", "no": "Not at every grid.", "undecided": "Undecided for every grid at once.",
    "empty": "Neither is above chance anywhere.",
}  # fmt: skip

PairsOf = Callable[[Lines, Sequence[Point]], Iterable[tuple[str, str]]]


@dataclass(frozen=True)
class Pairwise:
    """A comparison with the table it is of."""

    group: Group
    words: Wording
    compared: ModelComparison

    def lines(self) -> list[str]:
        """A sentence for each grid, and one for all of them."""
        c, verdicts = self.compared, self.compared.comparison.verdicts
        lines = [sentence(v, c.flexible, c.fixed, self.words, named=not i) for i, v in enumerate(verdicts)]
        lines += [f"No verdict at grid {grid}: {why}." for grid, why in c.unknown.items()]
        if len(verdicts) > 1:
            lines.append(EVERYWHERE[c.comparison.everywhere])
        return lines


def text_of(found: Sequence[Pairwise]) -> str:
    """All comparisons as text."""
    parts = []
    for pair in found:
        parts += [f"{title(pair.group)}: {title_of(pair.compared)}", *(f"  {line}" for line in pair.lines())]
    return "\n".join([*parts, footer(len(found))])


def compare_backbones(store: Store, first: str, second: str, margin: float | None = None) -> list[Pairwise]:
    """May the first backbone replace the second, on each task of a folder where both were trained alike?

    Args: names as rows have them; margin as it is shown (points for per cent).

    Raises: ValueError for a name that no row has, with the nearest ones, and where they meet nowhere.

    Example: `compare_backbones(Store("results/runs/mini"), "flexivit_nano", "vit_nano_g8")`
    """
    found = entries([store])
    known = list(dict.fromkeys(e.backbone for e in found))
    for name in (first, second):
        if name not in known:
            near = difflib.get_close_matches(name, known, 3, 0.3) or known
            raise ValueError(f"{store.folder} has no rows of {name}; it has: {', '.join(near) or 'none'}")
    made = list(_in_tables(found, lambda lines, _: [(first, second)] if _both(lines, first, second) else [], margin))
    if not made:
        raise ValueError(f"{first} and {second} have no table of {store.folder} in common, trained at one grid")
    return made


def compare_folders(one: Store, other: Store, margin: float | None = None) -> tuple[list[Pairwise], list[str]]:
    """May the models of the first folder replace those of the second? And where the folders do not agree.

    Backbones of one name are compared with each other; of the others the flexible ones of the first folder with the
    fixed ones of the second, or the one that is left over with the one left over there.

    Raises: ValueError where nothing is to be compared.

    Example: `compare_folders(Store("results/runs/new"), Store("results/runs/old"))`
    """
    found, notes = entries([one, other], apart=True), disagreements([one, other])
    folders = {e.backbone: e.store.folder for e in found}
    made = list(_in_tables(found, lambda lines, points: _across(lines, points, folders, one.folder), margin))
    if not made:
        why = f": {'; '.join(notes)}" if notes else "; no task, training and grid is in both"
        raise ValueError(f"nothing of {one.folder} can be compared with {other.folder}{why}")
    return made, notes


def folder_with(first: str, second: str, root: Path = Path("results/runs")) -> Path:
    """The one folder of results that has rows of both backbones.

    Raises: ValueError naming the folders, where there is none or more than one.
    """
    folders = sorted(p.parent for p in root.rglob("rows.jsonl")) if root.is_dir() else []
    having = [f for f in folders if {first, second} <= {r.backbone for r in Store(f).rows()}]
    if len(having) == 1:
        return having[0]
    if having:
        raise ValueError(f"{first} and {second} are in {', '.join(map(str, having))}: choose one with --run")
    raise ValueError(f"no folder under {root} has rows of both {first} and {second}; give one with --run")


def _in_tables(found: Sequence[Entry], pairs_of: PairsOf, margin: float | None) -> Iterator[Pairwise]:
    measurements = Measurements()
    for group, table in tables_of(found).items():
        points = points_of(table, measurements)
        if not points:
            continue
        lines = lines_of(points)
        for first, second in pairs_of(lines, points):
            for own, theirs in _alike(lines, first, second):
                compared = compare_lines(own, theirs, rules_of(points[0].row, margin))
                yield Pairwise(group, wording_of(points[0].row, points), compared)


def _both(lines: Lines, first: str, second: str) -> bool:
    return {first, second} <= {name for name, _, _ in lines}


def _alike(lines: Lines, first: str, second: str) -> Iterator[tuple[dict[str, Point], dict[str, Point]]]:
    """Lines of both that were trained alike; where none were and each was trained one way, those."""
    own = {(train, view): line for (name, train, view), line in lines.items() if name == first}
    theirs = {(train, view): line for (name, train, view), line in lines.items() if name == second}
    common = [k for k in own if k in theirs]
    if not common and len(own) == len(theirs) == 1:
        pairs = [(next(iter(own.values())), next(iter(theirs.values())))]
    else:
        pairs = [(own[k], theirs[k]) for k in common]
    yield from (pair for pair in pairs if set(pair[0]) & set(pair[1]))


def _across(lines: Lines, points: Sequence[Point], folders: dict[str, Path], first: Path) -> Iterator[tuple[str, str]]:
    names = list(dict.fromkeys(name for name, _, _ in lines))
    here, there = ([n for n in names if (folders[n] == first) == own] for own in (True, False))
    plain = {n: n.partition(" [")[0] for n in names}
    kinds = {p.backbone: is_flexible(p.row) for p in points}
    same = [(a, b) for a in here for b in there if plain[a] == plain[b]]
    yield from same
    new = [a for a in here if a not in {p[0] for p in same}]
    old = [b for b in there if b not in {p[1] for p in same}]
    mixed = [(a, b) for a in new for b in old if kinds[a] is True and kinds[b] is False]
    yield from mixed
    if not mixed and len(new) == len(old) == 1:
        yield new[0], old[0]
