"""What a plug-in imports: the contract between a task and the engine. Loads without torch."""

from tasks.contract.batch import Batch, Widths, mapped, slice_targets
from tasks.contract.card import Metric, TaskCard, TrainingWork
from tasks.contract.errors import TaskError
from tasks.contract.options import Options, option
from tasks.contract.recipe import Recipe
from tasks.contract.task import Meter, Task, without_gradients
from tasks.contract.view import Grid, View

__all__ = [
    "Batch", "Grid", "Meter", "Metric", "Options", "Recipe", "Task", "TaskCard", "TaskError",
    "TrainingWork", "View", "Widths", "mapped", "option", "slice_targets", "without_gradients",
]  # fmt: skip
