"""Weights that are not trained: locked by a recipe, or not used, such as an upstream classifier under a new head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from benchmarks.engine.training.optimizers import group_of, is_locked
from tasks.contract import Batch, Grid, Recipe, Task


def lock(model: nn.Module, recipe: Recipe) -> dict[str, int]:
    """Freeze the parameters whose factor in `lr_groups` is 0; modules of such alone go to eval mode.

    So nothing in them moves: neither weights nor running statistics, and no layer of theirs is dropped.

    Returns: how many numbers each prefix locks.

    Example: `lock(model.train(), Recipe(lr_groups={"text": 0.0}))`
    """
    locked: dict[str, int] = {}
    learning = set()
    for name, parameter in model.named_parameters():
        if is_locked(name, recipe):
            parameter.requires_grad_(False)
            prefix = group_of(name, recipe) or ""
            locked[prefix] = locked.get(prefix, 0) + parameter.numel()
        else:
            learning.add(id(parameter))
    for module in model.modules() if locked else ():
        own = [id(p) for p in module.parameters()]
        if own and learning.isdisjoint(own):
            module.eval()
    return locked


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
