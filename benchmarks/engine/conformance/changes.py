"""Whatever can be set must show: an option or a view's field that changes nothing is not what it says."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import asdict
from typing import Any, cast

import torch
from torch import nn

from backbones import build_backbone
from backbones.contract import bound
from backbones.grids import METHODS, valid_grids
from benchmarks.engine.batches.evaluation import eval_batches
from benchmarks.engine.conformance.trying import Few, others, require, same, shaken
from benchmarks.engine.sweep import sweep
from tasks.contract import Task, TaskError, View


def resize_acts(task: Task, model: nn.Module, split: str) -> str:
    """Other resize methods give other records at some grid, unless backbone or task declare themselves indifferent."""
    if "resize" in task.indifferent():
        return f"declared indifferent ({task.indifferent()['resize']})"
    encoder = getattr(model, "backbone", None)
    fields: frozenset[str] = getattr(encoder, "view_fields", frozenset())
    if "resize" not in fields:
        return "the backbone declares itself indifferent"
    for grid in [g for g in valid_grids(task.card.image_size) if 2 < g <= 16][:4]:
        usual = _records(task, model, View(grid, "pi"), split)
        for method in [m for m in METHODS if m not in ("pi", "norm")]:
            if not same(_records(task, model, View(grid, method), split), usual):
                return ""
    raise AssertionError("records are the same under every resize method: `predict` does not use the bound backbone")


def option_acts(task: Task, backbone: str, split: str, name: str, grids: tuple[int, ...]) -> str:
    """Another value of an option changes samples, weights, losses, records or rows.

    Raises: Broken where nothing changes and the task does not declare itself indifferent to it.
    """
    if name in task.indifferent():
        return f"declared indifferent ({task.indifferent()[name]})"
    about = type(task).Options.__dataclass_fields__[name].metadata
    own, tried = _set(task), []
    for value in others(own[name], about["values"]):
        try:
            other = type(task)(task.root, {**own, name: value}, task.seed)
        except (TaskError, ValueError):
            continue
        other.dataset = _short_like(task, other)  # type: ignore[method-assign]
        tried.append(value)
        try:
            if not same(_seen(task, backbone, split, grids), _seen(other, backbone, split, grids)):
                return f"{value!r} differs from {own[name]!r}"
        except Exception:  # a value that a user would be told of in use; another one may do
            continue
    if not tried:
        return "not tried: no other value is known; option(..., values=(...)) would tell one"
    require(False, f"{', '.join(map(repr, tried))} change nothing; use it, or name it in `indifferent()`")
    return ""


def _set(task: Task) -> dict[str, Any]:
    return {n: getattr(task.options, n) for n in type(task).Options.__dataclass_fields__}


def _short_like(task: Task, other: Task) -> Any:
    return lambda split: Few(type(other).dataset(other, split), len(cast(Sized, task.dataset(split))))


def _seen(task: Task, backbone: str, split: str, grids: tuple[int, ...]) -> list[Any]:
    """All that a task shows: samples, initial weights, a loss, records and rows."""
    found: list[Any] = [asdict(task.recipe), asdict(task.card.metric)]
    torch.manual_seed(0)
    model = shaken(task.model(build_backbone(backbone, pretrained=False)))
    found.append(dict(model.state_dict()))
    if task.recipe.steps:
        data = task.dataset("train")
        drawn = [getattr(data, "sample", lambda i, _: data[i])(i, torch.Generator().manual_seed(i)) for i in range(4)]
        found.append([list(d) for d in drawn])
        batch = task.collate([(i, *d) for i, d in enumerate(drawn)])
        torch.manual_seed(0)
        with torch.no_grad():
            mixed = task.augment(model.train(), batch, torch.Generator().manual_seed(0))
            found.append(task.loss(model, mixed, (grids[0], grids[0])))
    model.eval()
    views = task.views(list(grids))
    try:
        found += [[metrics, samples] for _, metrics, samples in sweep(task, model, views, split).rows]
    except TaskError:
        found += [_records(task, model, view, split) for view in views]
    return found


@torch.no_grad()
def _records(task: Task, model: nn.Module, view: View, split: str) -> list[Any]:
    part, found = task.parts(split)[-1], []
    with task.viewing(model.eval(), view) as own, bound(model):
        prepared = own.prepare(model, split)
        for batch in eval_batches(task.reading(view), part, 8):
            found.append(own.predict(model, batch, view.grid, prepared))
    return found
