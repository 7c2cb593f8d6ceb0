"""The answer of a run: where one flexible model matches the fixed ones, what a grid costs, which one for a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from backbones import backbone_spec
from benchmarks.report.confidence import Confidence, Difference
from benchmarks.report.tables import Group, group_of, newest
from benchmarks.store import Row


@dataclass(frozen=True)
class Point:
    """One row as a choice: `quality` as a fraction, `macs` of one image, `rate` in images/s as measured in the run."""

    backbone: str
    train: str
    grid: str
    quality: float
    macs: int | None
    rate: float | None
    row: Row

    @property
    def name(self) -> str:
        trained = "" if self.train == "-" else f", trained at {self.train}"
        return f"{self.backbone} at grid {self.grid}{trained}"


def is_flexible(name: str) -> bool:
    """Was the backbone trained at many grids? What the registry does not know counts as fixed."""
    try:
        return bool(backbone_spec(name).flexible)
    except ValueError:
        return False


def points(rows: Sequence[Row]) -> dict[Group, list[Point]]:
    """Choices of each table; only its first seed, and only the PI resize."""
    found: dict[Group, list[Point]] = {}
    good = newest(rows)
    first = {group: min(r.get("seed") or 0 for r in good if group_of(r) == group) for group in map(group_of, good)}
    for row in good:
        value = row["metrics"].get(row.get("metric"))
        if value is None or row.get("resize", "pi") != "pi" or (row.get("seed") or 0) != first[group_of(row)]:
            continue
        train = "-" if row["train_grid"] is None else str(row["train_grid"])
        cost = row.get("cost") or {}
        rate = cost.get("images_per_second")
        point = Point(row["backbone"], train, str(row["eval_grid"]), value, cost.get("macs"), rate, row)
        found.setdefault(group_of(row), []).append(point)
    return found


def front(choices: Sequence[Point], higher: bool = True) -> list[Point]:
    """Choices that no other beats in quality at the same or fewer MACs, cheapest first.

    Example: `[p.name for p in front(points(rows)[group])]`
    """
    kept: list[Point] = []
    for point in sorted((c for c in choices if c.macs), key=lambda c: (c.macs, -c.quality if higher else c.quality)):
        if not kept or (point.quality > kept[-1].quality if higher else point.quality < kept[-1].quality):
            kept.append(point)
    return kept


def cheapest(choices: Sequence[Point], within: float, higher: bool = True) -> tuple[Point, Point] | None:
    """The cheapest choice at most `within` (a fraction) worse than the best, and the best itself.

    None where no cost is known.
    """
    if not (known := [c for c in choices if c.macs]):
        return None
    best = (max if higher else min)(known, key=lambda c: c.quality)
    good = [c for c in known if (best.quality - c.quality if higher else c.quality - best.quality) <= within]
    return min(good, key=lambda c: (c.macs, -c.quality if higher else c.quality)), best


def fastest(choices: Sequence[Point], latency: float, higher: bool = True) -> Point | None:
    """The best choice that took at most `latency` milliseconds an image in the run's passes; None where none did."""
    quick = [c for c in choices if c.rate and 1000 / c.rate <= latency]
    return (max if higher else min)(quick, key=lambda c: c.quality) if quick else None


@dataclass(frozen=True)
class Verdict:
    """A flexible against a fixed backbone, trained alike: grids where it is ahead, equal within noise, behind."""

    flexible: str
    fixed: str
    train: str
    ahead: list[str]
    equal: list[str]
    behind: list[str]
    unknown: list[str]
    differences: dict[str, Difference]

    def sentence(self) -> str:
        """One sentence; only what an interval says is called ahead, behind or equal."""
        parts = [
            f"{word} at {'grids' if len(grids) > 1 else 'grid'} {', '.join(grids)}"
            for word, grids in (
                ("ahead", self.ahead), ("equal within noise", self.equal), ("behind", self.behind),
                ("without an interval", self.unknown),
            )
            if grids
        ]  # fmt: skip
        trained = f"Trained at {self.train}, " if self.train != "-" else ""
        return f"{trained}{self.flexible} against {self.fixed}: {'; '.join(parts)}."


def verdicts(choices: Sequence[Point], confidence: Confidence, higher: bool = True) -> list[Verdict]:
    """Every flexible backbone against every fixed one, at each training grid that both have."""
    found = []
    table: dict[tuple[str, str], dict[str, Point]] = {}
    for point in choices:
        table.setdefault((point.backbone, point.train), {})[point.grid] = point
    for (flexible, train), own in table.items():
        if not is_flexible(flexible):
            continue
        for (fixed, other_train), theirs in table.items():
            if is_flexible(fixed) or other_train != train:
                continue
            places: dict[str, Any] = {"ahead": [], "equal": [], "behind": [], "unknown": []}
            differences = {}
            for grid in (g for g in own if g in theirs):
                difference = confidence.difference(own[grid].row, theirs[grid].row)
                if difference is None:
                    places["unknown"].append(grid)
                    continue
                differences[grid] = difference
                better = difference.mean > 0 if higher else difference.mean < 0
                places["equal" if difference.equal else "ahead" if better else "behind"].append(grid)
            if any(places.values()):
                found.append(Verdict(flexible, fixed, train, **places, differences=differences))
    return found
