"""Choices: a backbone, trained one way and evaluated at one grid, under all its seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backbones import backbone_spec
from benchmarks.cost.latency import Latency
from benchmarks.report.answers.measurements import Measured, Measurements
from benchmarks.report.answers.questions import Entry, Group
from benchmarks.report.statistics.draws import Choice, choice_of
from benchmarks.report.statistics.variance import Arm, Estimate, arm_of, estimate
from benchmarks.store import Row


@dataclass(frozen=True)
class Point:
    """A choice.

    Args:
        backbone: as it is shown.
        train: grid or schedule of its training, "-" where nothing is trained.
        grid: of the evaluation; `view` is what else was chosen there.
        rows: one a seed, by seed.
        measured: of the rows, in their order; empty where one of them has no replicates, or where they were measured
            over other samples, which `why_not` tells.
    """

    backbone: str
    train: str
    grid: str
    view: str
    rows: tuple[Row, ...]
    measured: tuple[Measured, ...] = ()
    why_not: str = ""

    @property
    def row(self) -> Row:
        """That of the first seed: what all of them have in common."""
        return self.rows[0]

    @property
    def name(self) -> str:
        trained = "" if self.train == "-" else f", trained at {self.train}"
        return f"{self.backbone} at grid {f'{self.grid} {self.view}'.strip()}{trained}"

    @property
    def quality(self) -> float:
        """The metric in its own unit, mean over seeds."""
        return statistics.fmean(row.metrics[row.metric or ""] or 0.0 for row in self.rows)

    @property
    def macs(self) -> int | None:
        """Of one image."""
        return next((row.cost["macs"] for row in self.rows if row.cost.get("macs")), None)

    @property
    def trained(self) -> bool:
        return self.train != "-"

    @property
    def identity(self) -> str:
        """Of the samples it was measured over; "" without replicates."""
        return self.measured[0].identity if self.measured else ""

    def arm(self) -> Arm | None:
        """For a comparison at this grid."""
        return joint_arm([self])

    def estimate(self, fraction: bool = True) -> Estimate | None:
        """The metric with its uncertainty."""
        arm = self.arm()
        return None if arm is None else estimate(lambda metrics: metrics[0], [arm], fraction)

    def choice(self) -> Choice | None:
        """For the best, and for the front."""
        if not self.measured:
            return None
        model = f"{self.backbone} {self.train}" if self.trained else ""
        replicates = [m.replicates for m in self.measured]
        return choice_of(self.name, replicates, self.measured[0].units, self.macs, model, self.trained)


def joint_arm(points: Sequence[Point]) -> Arm | None:
    """One model at several grids, its seeds paired; None where something of it is not measured, or seeds are missing.

    Example: `joint_arm([at_8, at_15]).values.shape` is `(3, 2)`
    """
    seeds = {tuple(row.seed for row in p.rows) for p in points}
    identities = {p.identity for p in points}
    if len(seeds) != 1 or len(identities) != 1 or "" in identities:
        return None
    by_seed = zip(*(p.measured for p in points), strict=True)
    keys = tuple(row.row_key for p in points for row in p.rows)
    first = points[0]
    return arm_of(
        [[m.replicates for m in grids] for grids in by_seed], first.measured[0].units, trained=first.trained, keys=keys
    )


def tables_of(found: Sequence[Entry]) -> dict[Group, list[Entry]]:
    """Entries of each table."""
    tables: dict[Group, list[Entry]] = {}
    for entry in found:
        tables.setdefault(entry.group, []).append(entry)
    return tables


def points_of(table: Sequence[Entry], measurements: Measurements) -> list[Point]:
    """Choices of a table, without those that have no value of their metric.

    Example: `[points_of(table, Measurements()) for table in tables_of(entries([store])).values()]`
    """
    places: dict[tuple[str, ...], dict[int, Entry]] = {}
    for entry in table:
        places.setdefault((entry.backbone, entry.train, entry.grid, entry.view), {})[entry.seed] = entry
    return [_point(place, seeds, measurements) for place, seeds in places.items() if _valued(seeds)]


def _valued(seeds: Mapping[int, Entry]) -> bool:
    """Has every seed a value of the metric? A mean over some of them would hide the others."""
    return all(e.row.metrics.get(e.row.metric or "") is not None for e in seeds.values())


def _point(place: tuple[str, ...], seeds: Mapping[int, Entry], measurements: Measurements) -> Point:
    found = [seeds[seed] for seed in sorted(seeds)]
    measured = [m for entry in found if (m := measurements.of(entry)) is not None]
    whole = len(measured) == len(found) and len({m.identity for m in measured}) == 1
    backbone, train, grid, view = place
    why = (
        ""
        if whole
        else next((w for e in found if (w := measurements.why_not(e))), "its seeds were measured over other samples")
    )
    return Point(backbone, train, grid, view, tuple(e.row for e in found), tuple(measured) if whole else (), why)


def is_flexible(row: Row) -> bool | None:
    """Were the weights trained at many grids? By the row, else by the registry; None where it is not known."""
    if row.flexible is not None:
        return row.flexible
    try:
        return backbone_spec(row.backbone).flexible
    except ValueError:
        return None


def made_for(row: Row) -> tuple[str, ...]:
    """Grids that the weights of a fixed model were made for, at the row's image size: first that of the same patch in
    pixels, then that of as many patches; none where it is not known."""
    try:
        spec = backbone_spec(row.backbone)
    except ValueError:
        return ()
    if spec.native_grid is None:
        return ()
    side = spec.native_grid if isinstance(spec.native_grid, int) else spec.native_grid[0]
    size = spec.image_size if isinstance(spec.image_size, int) else spec.image_size[0]
    scaled = side * (row.image_size or size) / size
    return tuple(dict.fromkeys(([str(int(scaled))] if scaled == int(scaled) else []) + [str(side)]))


def latency_of(point: Point, measured: Mapping[str, Latency]) -> Latency | None:
    """What was measured of a choice in one setting; of the first of its seeds that was measured."""
    return next((measured[row.row_key] for row in point.rows if row.row_key in measured), None)
