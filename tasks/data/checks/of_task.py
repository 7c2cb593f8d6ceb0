"""What keeps a task from starting for want of data, or for data that are wrong."""

from __future__ import annotations

import inspect as signatures
from typing import TYPE_CHECKING, Any

from tasks.data.checks.inspection import Findings, inspect
from tasks.data.errors import DataError

if TYPE_CHECKING:
    from tasks.contract import Task


def findings_of(task: Task, splits: tuple[str, ...]) -> Findings:
    """What is missing, and what a look at every picture and label finds, of the splits and of those it trains on.

    A task whose attribute `data` is one of our sets is looked at whole; of others `task.missing` is all there is.

    Example: `findings_of(build_task("classification", "data", {"data": "cars98"}), ("test",)).errors == []`
    """
    takes_splits = "splits" in signatures.signature(task.missing).parameters
    lacking: list[Any] = list(task.missing(splits) if takes_splits else task.missing())  # type: ignore[call-arg]
    data: Any = getattr(task, "data", None)
    if lacking or not hasattr(data, "problems") or not hasattr(data, "whole"):
        return Findings(problems=[_typed(task, one) for one in lacking])
    reads = task.reads(splits) if hasattr(task, "reads") else splits
    return inspect(data, reads)


def _typed(task: Task, lacking: Any) -> DataError:
    """A plug-in's plain text gets the sources of its card; errors of the data room carry their own advice."""
    if isinstance(lacking, DataError):
        return lacking
    known = " ".join(f"{name}: {source}" for name, source in task.card.sources.items() if source)
    return DataError(str(lacking), advice=known)
