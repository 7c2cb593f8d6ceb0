"""Tasks by name: built in, from entry points "flexivit_transfer.tasks", or as "module:Class"."""

from __future__ import annotations

import difflib
import fnmatch
import functools
import importlib
import sys
from importlib.metadata import EntryPoints, entry_points
from pathlib import Path
from typing import Any

from backbones.trust import check_trusted
from tasks.contract import Task, TaskCard, TaskError

GROUP = "flexivit_transfer.tasks"

_BUILT_IN: dict[str, str] = {
    "classification": "tasks.classification:Classification",
    "retrieval": "tasks.retrieval:Retrieval",
    "detection": "tasks.detection:Detection",
    "image_retrieval": "tasks.retrieval:ImageRetrieval",
    "landmark_retrieval": "tasks.retrieval.images.landmarks:Landmarks",
    "segmentation": "tasks.segmentation:Segmentation",
    "upstream": "tasks.upstream:Upstream",
}
_REGISTERED: dict[str, str | type[Task]] = {}


def register_task(name: str, target: str | type[Task]) -> None:
    """Make `target` (a class or "module:Class") known as `name`."""
    _REGISTERED[name] = target


@functools.lru_cache(maxsize=4)
def _entries(group: str, path: tuple[str, ...]) -> EntryPoints:
    """Entry points as `path` (sys.path) offers them; the search reads every installed package's metadata."""
    return entry_points(group=group)


def _table() -> dict[str, Any]:
    table: dict[str, Any] = {e.name: e for e in _entries(GROUP, tuple(sys.path))}
    table.update(_BUILT_IN)  # a stranger's package takes no name of ours
    table.update(_REGISTERED)
    return table


def list_tasks(pattern: str = "*") -> list[str]:
    """Names of all known tasks that match a wildcard. Imports none of them."""
    return sorted(n for n in _table() if fnmatch.fnmatch(n, pattern))


def task_class(name: str) -> type[Task]:
    """The class behind a name.

    Raises: TaskError naming the nearest known names.
    """
    table = _table()
    target = table.get(name, name if ":" in name else None)
    if target is None:
        near = difflib.get_close_matches(name, table, 3, 0.4)
        hint = f"nearest: {', '.join(near)}" if near else f"known: {', '.join(sorted(table))}"
        raise TaskError(f"no task {name!r}; {hint}")
    if name not in table:
        try:
            check_trusted("task", name)
        except ValueError as error:
            raise TaskError(str(error)) from None
    loaded = _loaded(name, target)
    if not (isinstance(loaded, type) and issubclass(loaded, Task)):
        raise TaskError(f"{_origin(name, target)} is no class of tasks.Task")
    return loaded


def _loaded(name: str, target: Any) -> Any:
    """What an entry point or `module:Class` names.

    Raises: TaskError where it cannot be imported, whatever the module raises.
    """
    try:
        if hasattr(target, "load"):
            return target.load()
        if isinstance(target, str):
            module, _, attribute = target.partition(":")
            return getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:
        told = " ".join(str(error).split())
        raise TaskError(f"{_origin(name, target)} cannot be imported: {type(error).__name__}: {told}") from error
    return target


def _origin(name: str, target: Any) -> str:
    package = getattr(getattr(target, "dist", None), "name", "")
    return f"task {name!r} of {package} ({target.value})" if package else f"task {name!r}"


def build_task(name: str, root: str | Path = ".", options: dict[str, Any] | None = None, seed: int = 0) -> Task:
    """Build a task by name.

    Raises: TaskError for a name, options or data that it cannot be, or a task that does not say what it is.

    Example: `build_task("classification", root="data", options={"data": "cars98"})`
    """
    task = task_class(name)(root=root, options=options, seed=seed)
    if not isinstance(getattr(task, "card", None), TaskCard):
        raise TaskError(f"task {name!r} has no card: it needs a TaskCard of that name")
    return task
