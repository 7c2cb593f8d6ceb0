"""What is kept of each sample, read once for each row and recomputed over parts of the samples."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from backbones.trust import trusting
from benchmarks.report.answers.questions import Entry
from benchmarks.report.statistics.jackknife import (
    Groups,
    Replicates,
    deal_groups,
    replicates_of_sums,
    replicates_of_weights,
)
from benchmarks.store import Row, Store
from benchmarks.store.failures import one_line
from tasks import build_task
from tasks.contract import Task

TOLERANCE = 1e-4  # per-sample values are rounded; a metric that differs by more is another row's


@dataclass(frozen=True)
class Measured:
    """Replicates of a row, and over which samples.

    Args:
        samples: their number; `units` of them are independent, and `drawn` is what those are called.
        identity: equal where ids, clusters and their order are; only such rows are compared.
    """

    replicates: Replicates
    samples: int
    units: int
    identity: str
    drawn: str = "pictures"


class Measurements:
    """Replicates of rows, each computed once. Where there are none, `why_not` says why.

    Example: `Measurements().of(entries([store])[0]).replicates.whole`
    """

    def __init__(self) -> None:
        self._measured: dict[tuple[str, str], Measured | str] = {}
        self._tasks: dict[str, Task | str] = {}
        self._groups: dict[str, Groups] = {}

    def of(self, entry: Entry) -> Measured | None:
        """None where its metric cannot be recomputed from what is kept of each sample."""
        found = self._found(entry)
        return found if isinstance(found, Measured) else None

    def why_not(self, entry: Entry) -> str:
        """Why a row has no replicates; "" where it has."""
        found = self._found(entry)
        return found if isinstance(found, str) else ""

    def _found(self, entry: Entry) -> Measured | str:
        key = (str(entry.store.folder), entry.row.row_key)
        if key not in self._measured:
            self._measured[key] = self._measure(entry.row, entry.store)
        return self._measured[key]

    def _measure(self, row: Row, store: Store) -> Measured | str:
        samples = store.samples(row)
        if samples is None or "ids" not in samples:
            return "nothing is kept of its samples"
        task = self._task(row, store.trust)
        if isinstance(task, str):
            return task
        ids = samples["ids"]
        clusters = samples.get(str(row.get("cluster") or ""))
        identity = _identity(ids, clusters)
        if identity not in self._groups:
            self._groups[identity] = deal_groups(len(ids), clusters)
        groups = self._groups[identity]
        if groups.number < 2:
            return "it has fewer than two independent samples"
        try:
            replicates = _replicates(task, samples, groups)
        except Exception as error:  # files of others, and code of plug-ins
            return f"its per-sample values are not those of {row.task}: {one_line(error)}"
        if replicates is None:
            return f"task {row.task} gives no metric of resampled samples"
        if not replicates.finite:
            return "its metric is not defined without some of the samples"
        told = row.metrics.get(row.metric or "")
        if told is None or abs(told - replicates.whole) > TOLERANCE:
            return f"its per-sample values give {replicates.whole:.6g}, the row says {told}"
        drawn = task.card.units if clusters is None or task.card.cluster else "clusters"
        return Measured(replicates, len(ids), groups.units, identity, drawn)

    def _task(self, row: Row, trust: bool) -> Task | str:
        """The task, or why there is none: a plug-in that is not installed here, or code that is not trusted."""
        name = f"{row.task} {dict(row.options)} {trust}"
        if name not in self._tasks:
            try:
                with trusting(trust):
                    self._tasks[name] = build_task(row.task, ".", dict(row.options))
            except Exception as error:  # a plug-in may raise anything
                self._tasks[name] = str(error) if isinstance(error, ValueError) else one_line(error)
        return self._tasks[name]


def _replicates(task: Task, samples: Mapping[str, Any], groups: Groups) -> Replicates | None:
    sums = task.sums(samples)
    if sums is not None:
        return replicates_of_sums(*sums, groups)
    if task.resampled(samples, np.ones((1, groups.samples))) is None:
        return None
    return replicates_of_weights(lambda weights: task.resampled(samples, weights), groups)


def _identity(ids: np.ndarray, clusters: np.ndarray | None) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(ids).tobytes())
    if clusters is not None:
        digest.update(np.unique(clusters, return_inverse=True)[1].astype(np.int64).tobytes())
    return digest.hexdigest()[:16]
