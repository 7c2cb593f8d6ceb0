"""May one index of embeddings serve every grid? Queries in galleries of other grids, against those of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.report.answers.measurements import TOLERANCE
from benchmarks.report.answers.questions import Entry, grid_order
from benchmarks.report.statistics.jackknife import deal_groups, replicates_of_sums
from benchmarks.report.statistics.sentences import Wording
from benchmarks.report.statistics.variance import Estimate, arm_of, estimate
from tasks.contract.task import sums_of_mean


@dataclass(frozen=True)
class OneIndex:
    """What a model finds when queries and gallery were embedded at different grids.

    Args:
        own: the metric where both have one grid, mean over the grids. across: over all pairs of two grids.
        loss: `across - own`, over the same queries.
        galleries: by the gallery's grid, the metric over queries of all other grids.
        best: the grid at which a gallery that is embedded once serves the others best.
    """

    backbone: str
    train: str
    view: str
    grids: tuple[str, ...]
    own: Estimate
    across: Estimate
    loss: Estimate
    galleries: Mapping[str, Estimate]

    @property
    def best(self) -> str:
        return max(self.galleries, key=lambda grid: self.galleries[grid].value)

    def line(self, words: Wording) -> str:
        """`One index for every grid: flexivit_nano finds 25.4 % where the gallery was embedded at another grid than the
        query's, 26.3 % at one grid: -0.9 points [-1.7, -0.1] (7 grids, 42 pairs). ...`"""
        low, high = self.loss.interval()
        lost, *ends = (f"{words.scale * v:+.{words.digits}f}" for v in (self.loss.value, low, high))
        trained = "" if self.train == "-" else f", trained at {self.train}"
        name = f"{self.backbone} {self.view}".strip()
        count, best = len(self.grids), words.value(self.galleries[self.best].value)
        hollow = " One training run." if self.loss.hollow else ""
        return (
            f"One index for every grid: {name}{trained} finds {words.value(self.across.value)} where the "
            f"gallery was embedded at another grid than the query's, {words.value(self.own.value)} at one grid: {lost} "
            f"{words.points} [{', '.join(ends)}] ({count} grids, {count * (count - 1)} pairs). Measured best is a "
            f"gallery of grid {self.best}, {best} over the queries of the others.{hollow}"
        )

    def as_json(self) -> dict[str, Any]:
        """Values in the metric's own unit, with 95 % intervals."""
        told = {"own": self.own, "across": self.across, "loss": self.loss}
        return {
            "backbone": self.backbone, "train": self.train, "view": self.view, "grids": list(self.grids),
            **{name: {"value": e.value, "interval": list(e.interval())} for name, e in told.items()},
            "galleries": {g: {"value": e.value, "interval": list(e.interval())} for g, e in self.galleries.items()},
        }  # fmt: skip


def one_index(table: Sequence[Entry], fraction: bool = True) -> list[OneIndex]:
    """Of each model of a table whose rows keep what each query finds in galleries of other grids.

    That is `METRIC_gallery_HxW` among the per-sample values, beside `METRIC`. Nothing is told of rows without it, of
    models with fewer than two grids, and where a seed lacks a grid.

    Example: `[own.line(words) for own in one_index(table)]`
    """
    models: dict[tuple[str, str, str], dict[int, dict[str, Entry]]] = {}
    for entry in table:
        if any(name.startswith(f"{entry.row.metric}_gallery_") for name in entry.row.metrics):
            model = models.setdefault((entry.backbone, entry.train, entry.view), {})
            model.setdefault(entry.seed, {})[entry.grid] = entry
    found = (_of_model(*names, seeds, fraction) for names, seeds in models.items())
    return [own for own in found if own is not None]


def _of_model(
    backbone: str, train: str, view: str, seeds: Mapping[int, Mapping[str, Entry]], fraction: bool
) -> OneIndex | None:
    grids = sorted(next(iter(seeds.values())), key=grid_order)
    if len(grids) < 2 or any(set(own) != set(grids) for own in seeds.values()):
        return None
    found = [_searched(own, grids) for own in seeds.values()]
    read = [own for own in found if own is not None]
    first = read[0] if read else None
    if first is None or len(read) < len(found) or not all(first.alike(own) for own in read):
        return None
    known = np.all([np.isfinite(own.hits).all((0, 1)) for own in read], axis=0)  # by queries that every gallery answers
    groups = deal_groups(int(known.sum()), None if first.clusters is None else first.clusters[known])
    if groups.number < 2:
        return None
    other = ~np.eye(len(grids), dtype=bool)
    arms = []
    for hits in (own.hits[..., known] for own in read):
        values = [hits[~other].mean(0), hits[other].mean(0), *(hits[other[:, g], g].mean(0) for g in range(len(grids)))]
        arms.append([replicates_of_sums(*sums_of_mean(v), groups) for v in values])
    arm = arm_of(arms, groups.units, trained=train != "-")
    own, across, *galleries = (estimate(lambda m, i=i: m[i], [arm], fraction) for i in range(2 + len(grids)))
    loss = estimate(lambda m: m[1] - m[0], [arm], fraction)
    return OneIndex(backbone, train, view, tuple(grids), own, across, loss, dict(zip(grids, galleries, strict=True)))


@dataclass(frozen=True)
class _Searched:
    """Ids [Q], clusters [Q], and what each query finds at each grid in the gallery of each, float64 [G, G, Q]."""

    ids: np.ndarray
    clusters: np.ndarray | None
    hits: np.ndarray

    def alike(self, other: _Searched) -> bool:
        same = self.clusters is None if other.clusters is None else np.array_equal(self.clusters, other.clusters)
        return bool(same) and np.array_equal(self.ids, other.ids)


def _searched(entries: Mapping[str, Entry], grids: Sequence[str]) -> _Searched | None:
    """None where a row lacks some of it, or where its values are others."""
    read = [entries[grid].store.samples(entries[grid].row) for grid in grids]
    first = read[0]
    if first is None or "ids" not in first:
        return None
    ids, clusters, hits = first["ids"], first.get(str(entries[grids[0]].row.cluster or "")), []
    for grid, samples in zip(grids, read, strict=True):
        row = entries[grid].row
        if samples is None or not np.array_equal(samples.get("ids", ()), ids):
            return None
        for other in grids:
            name = str(row.metric) if other == grid else f"{row.metric}_gallery_{_pair(other)}"
            values, told = samples.get(name), row.metrics.get(name)
            if values is None or told is None or values.shape != ids.shape or values.dtype.kind not in "fbiu":
                return None
            own = np.asarray(values, np.float64)
            known = own[np.isfinite(own)]
            if not len(known) or abs(float(known.mean()) - told) > TOLERANCE:
                return None
            hits.append(own)
    return _Searched(ids, clusters, np.array(hits).reshape(len(grids), len(grids), len(ids)))


def _pair(grid: str) -> str:
    """`8x8` for 8."""
    return grid if "x" in grid else f"{grid}x{grid}"
