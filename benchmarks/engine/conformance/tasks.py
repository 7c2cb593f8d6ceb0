"""An adapter proves itself: the contract of `tasks.contract`, tried on a few samples at two grids."""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from backbones import build_backbone
from backbones.grids import patch_size
from benchmarks.engine.batches.evaluation import Numbered
from benchmarks.engine.conformance.changes import option_acts, resize_acts
from benchmarks.engine.conformance.training import by_count, resumes, two_processes
from benchmarks.engine.conformance.trying import CLOSE, Trial, require, shaken, shortened
from benchmarks.engine.suite.recipes import check_recipe
from benchmarks.engine.sweep import sweep
from tasks.contract import Batch, Task, TaskError, View

SAMPLES = 4
CHANGED = 24  # samples over which a change of an option must show


def check_task(
    task: Task, grids: tuple[int, ...] = (4, 8), backbone: str = "flexivit_nano", thorough: bool = False
) -> list[str]:
    """Try the contract on the first samples of train and of the reported split.

    Args:
        backbone: a name; built with random weights where it can be.
        thorough: also change every option, resume a training, and train with two processes. Some minutes.

    Returns: a line for each promise, starting with `ok` or `FAIL`.

    Example: `check_task(build_task("classification", "data", {"data": "cars98"}))`
    """
    trial = Trial()
    trial.attempt("card and recipe are complete", lambda: _card(task))
    if not trial.attempt("data is there", lambda: _data(task)):
        return trial.lines
    split = next((s for s in task.card.splits if s not in ("train", "minival")), "test")
    trained = bool(task.recipe.steps)
    parts = dict.fromkeys((("train",) if trained else ()) + task.parts(split))
    sampled = [trial.attempt(f"samples of {part}", partial(_samples, trial, task, part)) for part in parts]
    if not all(sampled):
        return trial.lines
    torch.manual_seed(0)
    encoder = build_backbone(backbone, pretrained=False)
    if not trial.attempt("model", lambda: _kept(trial, "model", task.in_training().model(encoder))):
        return trial.lines
    model = shaken(trial.held["kept model"])
    shapes = {n: tuple(p.shape) for n, p in model.named_parameters()}
    for grid in grids if trained else ():
        promise = f"loss and gradient at grid {grid}"
        trial.attempt(promise, partial(_loss, task, model, trial.held["batch of train"], grid))
    if trained:
        batch = trial.held["batch of train"]
        trial.attempt(
            "the loss of a batch is that of its parts, by count", lambda: by_count(task, model, batch, grids[0])
        )
    _predictions(trial, task, model, split, grids, shapes)
    few = shortened(task, CHANGED)
    trial.attempt("the view's resize acts, or is declared indifferent", lambda: resize_acts(few, model, split))
    if thorough:
        for name in tuple(few.Options.__dataclass_fields__):
            trial.attempt(f"option {name} acts", partial(option_acts, few, backbone, split, name, grids))
        if trained:
            trial.attempt("a resumed training equals an uninterrupted one", lambda: resumes(few, backbone, grids))
            trial.attempt("two processes train as one", lambda: two_processes(task, backbone, grids))
    return trial.lines


def _kept(trial: Trial, name: str, value: Any) -> None:
    trial.held[f"kept {name}"] = value


def _card(task: Task) -> None:
    card = task.card
    require(bool(card.name and card.protocol), "card needs name, protocol and metrics")
    require(card.image_size > 0, f"image_size {card.image_size} is not a number of pixels")
    check_recipe(task.recipe)


def _data(task: Task) -> None:
    missing = task.missing()
    require(not missing, "; ".join(map(str, missing)))


def _samples(trial: Trial, task: Task, split: str) -> None:
    dataset = task.in_training().dataset(split) if split == "train" else task.reading(View(1)).dataset(split)
    numbered = Numbered(dataset)
    count = min(SAMPLES, len(numbered))
    require(count > 1, f"split {split!r} has {count} images")
    batch = task.collate([numbered[i] for i in range(count)])
    require(batch.ids.tolist() == list(range(count)), "collate must keep the ids in order")
    pictures = list(batch.images)
    require(all(p.dtype == torch.uint8 or p.is_floating_point() for p in pictures), "images must be uint8 or float")
    require(all(p.ndim == 3 for p in pictures), "images must be [C, H, W]")
    again = task.collate([numbered[i] for i in range(count)])
    require(all(torch.equal(a, b) for a, b in zip(pictures, again.images, strict=True)), "dataset is not stateless")
    trial.held[f"batch of {split}"] = batch


def _loss(task: Task, model: nn.Module, batch: Batch, grid: int) -> None:
    patch_size(task.card.image_size, grid)
    own = task.in_training()
    model.train()
    model.zero_grad()
    mixed = own.augment(model, batch, torch.Generator().manual_seed(0))
    out = own.loss(model, mixed, (grid, grid))
    require({"loss", "count"} <= set(out), f"loss must give 'loss' and 'count', not {sorted(out)}")
    require(out["loss"].ndim == 0 and math.isfinite(float(out["loss"].detach())), "loss must be one finite number")
    require(float(out["count"]) > 0, "count must be above 0")
    out["loss"].backward()
    asked = {n: p for n, p in model.named_parameters() if p.requires_grad}
    found = [p.grad for p in asked.values() if p.grad is not None]
    require(bool(found) and all(g.isfinite().all() for g in found), "no finite gradient reaches a parameter")


def _predictions(
    trial: Trial, task: Task, model: nn.Module, split: str, grids: tuple[int, ...], shapes: dict[str, tuple[int, ...]]
) -> None:
    model.eval()
    batch, views = trial.held[f"batch of {task.parts(split)[-1]}"], task.views([(g, g) for g in grids])
    with torch.no_grad():
        if not trial.attempt("prepare", lambda: _kept(trial, "prepared", task.prepare(model, split))):
            return
        for view in views:
            promise = f"prediction at grid {view.grid[0]} is pure and cuts like the batch"
            trial.attempt(promise, partial(_predict, task, model, batch, view, trial.held["kept prepared"]))
        trial.attempt("no parameter depends on the grid", lambda: _same(shapes, model))
        trial.attempt("meter gives a row of finite metrics for each view", lambda: _meter(task, model, views, split))


def _predict(task: Task, model: nn.Module, batch: Batch, view: View, prepared: Any) -> None:
    before = copy.deepcopy(model.state_dict())
    whole = task.predict(model, batch, view.grid, prepared)
    for name, value in whole.items():
        require(len(value) == len(batch), f"record {name!r} has {len(value)} entries for {len(batch)} samples")
    again = task.predict(model, batch, view.grid, prepared)
    require(all(torch.equal(whole[k], again[k]) for k in whole), "the same batch gave another prediction")
    halves = [task.predict(model, batch[i : i + 1], view.grid, prepared) for i in range(len(batch))]
    for name, value in whole.items():
        parts = torch.cat([h[name] for h in halves])
        same = _close(parts, value)
        require(same, f"record {name!r} of single images differs from that of the batch")
    after = model.state_dict()
    require(all(torch.equal(before[k], after[k]) for k in before), "predict changed the model")


def _close(parts: Tensor, whole: Tensor) -> bool:
    if whole.is_floating_point():
        return torch.allclose(parts.double(), whole.double(), CLOSE, CLOSE)
    return float((parts == whole).float().mean()) > 0.98  # near ties may fall otherwise


def _same(shapes: dict[str, tuple[int, ...]], model: nn.Module) -> None:
    now = {n: tuple(p.shape) for n, p in model.named_parameters()}
    require(now == shapes, f"parameters changed: {sorted(set(now.items()) ^ set(shapes.items()))[:2]}")


def _meter(task: Task, model: nn.Module, views: list[View], split: str) -> str:
    try:
        result = sweep(shortened(task, CHANGED), model, views, split)
    except TaskError as error:
        # some metrics are defined over a whole split only (AP): the meter says so itself
        return f"not over {CHANGED} samples ({error})"
    require(not result.failed, "; ".join(result.failed.values()))
    for _, metrics, samples in result.rows:
        name = task.card.metric.name
        require(name in metrics, f"metric {name!r} is not among {sorted(metrics)}")
        require(samples is None or "ids" in samples, "per-sample values need their ids")
    return ""
