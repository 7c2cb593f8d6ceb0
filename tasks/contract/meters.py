"""Ready meters: records by sample id, scored by a pure function that the `score` verb uses too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tasks.contract import Batch, TaskError, View

Records = dict[str, Tensor]
GROUPS = 400  # of samples, at most, that an interval leaves out in turn; as in the report


def gathered(value: Any) -> list[Any]:
    """The value of every process, in the order of their ranks; of a single process its own. All must call it.

    Example: `sum(gathered(3))` is 6 with two processes
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


class RecordMeter:
    """Keeps the records of each view and part, on the CPU; subclasses make rows of them.

    `merge` is exact, because records are gathered and not sums.
    """

    def __init__(self) -> None:
        self._seen: dict[View, dict[str, list[Records]]] = {}

    def update(self, records: Mapping[str, Tensor], batch: Batch, view: View, part: str) -> None:
        kept = {k: v.detach().cpu() for k, v in records.items()}
        for name, value in kept.items():
            assert len(value) == len(batch), f"record {name} has {len(value)} entries for {len(batch)} samples"
        self._seen.setdefault(view, {}).setdefault(part, []).append(kept | {"ids": batch.ids.detach().cpu()})

    def drop(self, view: View) -> None:
        """Forget a view whose predictions are not finite."""
        self._seen.pop(view, None)

    def merge(self) -> None:
        """Gather from all processes."""
        merged: dict[View, dict[str, list[Records]]] = {}
        for other in gathered(self._seen):
            for view, parts in other.items():
                for part, pieces in parts.items():
                    merged.setdefault(view, {}).setdefault(part, []).extend(pieces)
        self._seen = merged

    def parts(self) -> dict[View, dict[str, Records]]:
        """`{view: {part: records in the order of the ids, each id once}}`.

        Raises: TaskError when nothing was seen.
        """
        if not self._seen:
            raise TaskError("no image was evaluated: the split is empty")
        return {v: {part: _in_order(pieces) for part, pieces in parts.items()} for v, parts in self._seen.items()}

    def records(self) -> dict[View, Records]:
        """The same for a task with a single part."""
        found = self.parts()
        assert all(len(parts) == 1 for parts in found.values()), "several parts: use `parts`"
        return {view: next(iter(parts.values())) for view, parts in found.items()}


class ScoredRecords(RecordMeter):
    """`score(records)` gives the metrics of each view, and the records are kept per sample.

    Args:
        score: records of the reported part, in the order of the ids (key `ids`), to metrics as fractions.
        part: the reported part; records of others (a gallery) go to `join(records of all parts)` first.
        join: `{part: records} -> records`, for tasks that pass over several parts.
        keep: names of the records that are kept per sample; None keeps all.

    Example: `ScoredRecords(lambda r: {"top1": float(r["right"].float().mean())}, "test")`
    """

    def __init__(
        self,
        score: Callable[[Records], dict[str, float]],
        part: str,
        join: Callable[[dict[str, Records]], Records] | None = None,
        keep: tuple[str, ...] | None = None,
    ):
        super().__init__()
        self.score, self.part, self.join, self.keep = score, part, join, keep

    def rows(self) -> list[tuple[View, dict[str, float], dict[str, Any] | None]]:
        """Raises: TaskError when nothing of the reported part was seen."""
        rows: list[tuple[View, dict[str, float], dict[str, Any] | None]] = []
        for view, joined in self.parts().items():
            if self.part not in joined:
                raise TaskError(f"no image of split {self.part!r} was evaluated")
            records = self.join(joined) if self.join else joined[self.part]
            kept = {k: v for k, v in records.items() if self.keep is None or k in (*self.keep, "ids")}
            rows.append((view, self.score(records), kept))
        return rows


def _in_order(pieces: list[Records]) -> Records:
    """All records in the order of the ids, each id once."""
    whole = {k: torch.cat([p[k] for p in pieces]) for k in pieces[0]}
    order = torch.from_numpy(np.unique(whole["ids"].numpy(), return_index=True)[1])
    return {k: v[order] for k, v in whole.items()}


def mean_interval(values: Any, counted: Any = None, level: float = 0.95) -> tuple[float, float] | None:
    """Interval of the mean of per-sample values, by the law of the report: a delete-group jackknife with a t quantile.

    Groups are the samples, above 400 of them dealt at random; no set shows that nothing is ever wrong, so the variance
    is at least `2 / (n + 2)**2`. It may reach beyond 0 and 1. None for fewer than two samples that count.

    Args: values [N] from 0 to 1. counted bool [N]: those that count, all of them if None.

    Example: `low, high = mean_interval(right_or_wrong)`
    """
    from scipy.special import stdtrit

    counts = np.ones(len(values)) if counted is None else np.asarray(counted, np.float64)
    terms = np.stack([np.asarray(values, np.float64) * counts, counts])
    number, units = min(len(values), GROUPS), len(values)
    group = np.arange(units) if number == units else np.random.default_rng(0).permutation(units) % number
    right, there = (total - np.bincount(group, term, number) for total, term in zip(terms.sum(1), terms, strict=True))
    if number < 2 or there.min() <= 0:
        return None
    without = right / there
    variance = (number - 1) / number * ((without - without.mean()) ** 2).sum()
    half = stdtrit(number - 1, (1 + level) / 2) * np.sqrt(max(variance, 2 / (units + 2) ** 2))
    mean = terms[0].sum() / terms[1].sum()
    return float(mean - half), float(mean + half)
