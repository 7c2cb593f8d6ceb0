"""Downstream tasks: what to train and measure, never how the loop runs."""

from typing import Any

from tasks.contract import (
    Batch,
    Grid,
    Meter,
    Metric,
    Options,
    Recipe,
    Task,
    TaskCard,
    TaskError,
    View,
    option,
    without_gradients,
)
from tasks.registry import build_task, list_tasks, register_task, task_class

__all__ = [
    "Batch", "Frozen", "Grid", "Meter", "Metric", "Options", "Recipe", "Task", "TaskCard", "TaskError", "View",
    "build_task", "list_tasks", "option", "register_task", "task_class", "without_gradients",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "Frozen":  # a module of torch, which a plan does not wait for
        from tasks.contract.frozen import Frozen

        return Frozen
    raise AttributeError(f"module 'tasks' has no attribute {name!r}")
