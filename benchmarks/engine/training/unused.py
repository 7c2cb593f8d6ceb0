"""Weights that a task does not use, such as an upstream classifier under a new head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from tasks.contract import Batch, Grid, Task


def freeze_unused(task: Task, model: nn.Module, batch: Batch, grid: Grid, autocast: Callable[[], Any]) -> list[str]:
    """Freeze every parameter that a loss gives no gradient; processes of a group would wait for it for ever.

    It would not have been trained: nothing about the outcome changes. All processes must give the same batch.

    Returns: their names.

    Example: `freeze_unused(task, model, batch, (8, 8), accelerator.autocast)`
    """
    training = model.training
    with autocast():
        task.loss(model.eval(), batch, grid)["loss"].backward()
    unused = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    for parameter in (p for p in model.parameters() if p.requires_grad and p.grad is None):
        parameter.requires_grad_(False)
    model.zero_grad(set_to_none=True)
    model.train(training)
    return unused
