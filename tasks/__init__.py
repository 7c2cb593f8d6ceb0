"""Downstream tasks: what to train and measure, never how the loop runs."""

from tasks.registry import build_task, list_tasks, register_task, task_class
from tasks.task import Batch, Frozen, Grid, Meter, Options, Recipe, Task, TaskCard, TaskError, View, option

__all__ = [
    "Batch", "Frozen", "Grid", "Meter", "Options", "Recipe", "Task", "TaskCard", "TaskError", "View",
    "build_task", "list_tasks", "option", "register_task", "task_class",
]  # fmt: skip
