"""How sure a number is: bootstrap over samples, paired between two rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.store import Row, Store
from tasks import build_task
from tasks.contract import Task

DRAWS, LEVEL = 1000, 0.95


@dataclass(frozen=True)
class Difference:
    """First minus second, as fractions, with its interval."""

    mean: float
    low: float
    high: float

    @property
    def equal(self) -> bool:
        """Equal within noise: the interval holds 0."""
        return self.low <= 0 <= self.high


def multinomial(samples: int, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """float64 [draws, samples]: how often each sample is drawn when as many as there are are drawn with return."""
    return np.random.default_rng(seed).multinomial(samples, np.full(samples, 1 / samples), draws).astype(np.float64)


class Confidence:
    """Intervals of the rows of a folder. The same draws serve all rows of a split, so that differences are paired.

    Example: `Confidence(store).difference(flexible_row, fixed_row).equal`
    """

    def __init__(self, store: Store, draws: int = DRAWS):
        self.store, self.draws = store, draws
        self._values: dict[str, tuple[np.ndarray, np.ndarray] | None] = {}
        self._tasks: dict[str, Task | None] = {}

    def interval(self, row: Row) -> tuple[float, float] | None:
        """Of the row's metric, None where it cannot be recomputed from what is kept of each sample."""
        found = self._resampled(row)
        return None if found is None else _between(found[1])

    def difference(self, first: Row, second: Row) -> Difference | None:
        """Of two rows of one task, data and split; None where samples or task give no interval.

        Raises: ValueError for rows that answer different questions.
        """
        data = [(row.get("options") or {}).get("data") for row in (first, second)]
        pairs = {key: (first.get(key), second.get(key)) for key in ("task", "protocol", "split", "metric")}
        for key, (a, b) in {**pairs, "data": data}.items():
            if a != b:
                raise ValueError(f"rows of different {key} are not compared: {a!r}, {b!r}")
        a, b = self._resampled(first), self._resampled(second)
        if a is None or b is None or not np.array_equal(a[0], b[0]):
            return None
        metric = first["metric"]
        return Difference(first["metrics"][metric] - second["metrics"][metric], *_between(a[1] - b[1]))

    def _resampled(self, row: Row) -> tuple[np.ndarray, np.ndarray] | None:
        """Ids of the samples and the metric [draws] of the row."""
        key = row["row_key"]
        if key not in self._values:
            self._values[key] = self._compute(row)
        return self._values[key]

    def _compute(self, row: Row) -> tuple[np.ndarray, np.ndarray] | None:
        task = self._task(row)
        samples = self.store.samples(row) if task is not None else None
        if task is None or samples is None:
            return None
        values = task.resampled(samples, multinomial(len(samples["ids"]), self.draws))
        return None if values is None else (samples["ids"], values)

    def _task(self, row: Row) -> Task | None:
        name = f"{row['task']} {row.get('options')}"
        if name not in self._tasks:
            try:
                self._tasks[name] = build_task(row["task"], ".", row.get("options") or {})
            except ValueError:  # a plug-in that is not installed here: its numbers are shown without interval
                self._tasks[name] = None
        return self._tasks[name]


def _between(values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
