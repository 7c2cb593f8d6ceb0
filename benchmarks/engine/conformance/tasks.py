"""An adapter proves itself: the contract of `tasks.contract`, tried on a few samples at two grids."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from backbones import build_backbone
from backbones.grids import patch_size
from benchmarks.engine.batches.evaluation import Numbered
from tasks.contract import Batch, Task, TaskError, View

SAMPLES = 4
CLOSE = 1e-4  # a batch and its parts: kernels of other sizes round otherwise


class Broken(AssertionError):
    """What the adapter does against the contract."""


def check_task(task: Task, grids: tuple[int, ...] = (4, 8), backbone: str = "flexivit_nano") -> list[str]:
    """Try the contract on the first samples of train and of the reported split.

    Returns: a line for each promise, starting with `ok` or `FAIL`.

    Example: `check_task(build_task("classification", "data", {"data": "cars98"}))`
    """
    tried = _tried(task, grids, backbone)
    return [f"FAIL {name}: {problem}" if problem else f"ok   {name}" for name, problem in tried]


def _tried(task: Task, grids: tuple[int, ...], backbone: str) -> Iterator[tuple[str, str]]:
    held: dict[str, Any] = {}

    def attempt(name: str, promise: Callable[[], Any]) -> tuple[str, str]:
        try:
            held[name] = promise()
        except Exception as error:  # whatever a plug-in raises is the finding
            return name, f"{type(error).__name__}: {error}".splitlines()[0]
        return name, ""

    yield attempt("card and recipe are complete", lambda: _card(task))
    yield attempt("data is there", lambda: _data(task))
    split = next((s for s in task.card.splits if s not in ("train", "minival")), "test")
    for part in dict.fromkeys(("train", *task.parts(split))):
        yield attempt(f"samples of {part}", lambda part=part: _samples(task, part))
    if any(f"samples of {p}" not in held for p in ("train", *task.parts(split))):
        return
    encoder = build_backbone(backbone, pretrained=False)
    yield attempt("model", lambda: task.model(encoder))
    model = held.get("model")
    if model is None:
        return
    shapes = {n: tuple(p.shape) for n, p in model.named_parameters()}
    views = task.views([(g, g) for g in grids])
    if task.recipe.steps:
        for grid in grids:
            promise = f"loss and gradient at grid {grid}"
            yield attempt(promise, lambda g=grid: _loss(task, model, held["samples of train"], g))
    batch = held[f"samples of {task.parts(split)[-1]}"]
    model.eval()
    with torch.no_grad():
        yield attempt("prepare", lambda: task.prepare(model, split))
        if "prepare" not in held:
            return
        for view in views:
            promise = f"prediction at grid {view.grid[0]} is pure and cuts like the batch"
            yield attempt(promise, lambda v=view: _predict(task, model, batch, v, held["prepare"]))
        yield attempt("no parameter depends on the grid", lambda: _same(shapes, model))
        yield attempt("meter gives a row of fractions for each view", lambda: _meter(task, model, held, views, split))


def _require(promise: bool, otherwise: str) -> None:
    if not promise:
        raise Broken(otherwise)


def _card(task: Task) -> None:
    card = task.card
    _require(bool(card.name and card.protocol and card.metric), "card needs name, protocol and metrics")
    _require(card.image_size > 0, f"image_size {card.image_size} is not a number of pixels")
    task.recipe.check()


def _data(task: Task) -> None:
    missing = task.missing()
    _require(not missing, "; ".join(missing))


def _samples(task: Task, split: str) -> Batch:
    numbered = Numbered(task.dataset(split))
    count = min(SAMPLES, len(numbered))
    _require(count > 1, f"split {split!r} has {count} images")
    batch = task.collate([numbered[i] for i in range(count)])
    _require(batch.ids.tolist() == list(range(count)), "collate must keep the ids in order")
    pictures = list(batch.images)
    _require(all(p.dtype == torch.uint8 or p.is_floating_point() for p in pictures), "images must be uint8 or float")
    _require(all(p.shape[0] == 3 and p.ndim == 3 for p in pictures), "images must be [3, H, W]")
    again = task.collate([numbered[i] for i in range(count)])
    _require(all(torch.equal(a, b) for a, b in zip(pictures, again.images, strict=True)), "dataset is not stateless")
    return batch


def _loss(task: Task, model: nn.Module, batch: Batch, grid: int) -> None:
    patch_size(task.card.image_size, grid)
    model.train()
    model.zero_grad()
    mixed = task.augment(model, batch, torch.Generator().manual_seed(0))
    out = task.loss(model, mixed, (grid, grid))
    _require({"loss", "count"} <= set(out), f"loss must give 'loss' and 'count', not {sorted(out)}")
    _require(out["loss"].ndim == 0 and math.isfinite(float(out["loss"].detach())), "loss must be one finite number")
    _require(float(out["count"]) > 0, "count must be above 0")
    out["loss"].backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad and p.grad is not None]
    _require(bool(gradients) and all(g.isfinite().all() for g in gradients), "no finite gradient reaches a parameter")


def _predict(task: Task, model: nn.Module, batch: Batch, view: View, prepared: Any) -> dict[str, Tensor]:
    before = copy.deepcopy(model.state_dict())
    whole = task.predict(model, batch, view.grid, prepared)
    for name, value in whole.items():
        _require(len(value) == len(batch), f"record {name!r} has {len(value)} entries for {len(batch)} samples")
    again = task.predict(model, batch, view.grid, prepared)
    _require(all(torch.equal(whole[k], again[k]) for k in whole), "the same batch gave another prediction")
    halves = [task.predict(model, batch[i : i + 1], view.grid, prepared) for i in range(len(batch))]
    for name, value in whole.items():
        parts = torch.cat([h[name] for h in halves])
        same = (
            torch.allclose(parts.double(), value.double(), CLOSE, CLOSE)
            if value.is_floating_point()
            else (
                float((parts == value).float().mean()) > 0.98  # near ties may fall otherwise
            )
        )
        _require(same, f"record {name!r} of single images differs from that of the batch")
    after = model.state_dict()
    _require(all(torch.equal(before[k], after[k]) for k in before), "predict changed the model")
    return whole


def _same(shapes: dict[str, tuple[int, ...]], model: nn.Module) -> None:
    now = {n: tuple(p.shape) for n, p in model.named_parameters()}
    _require(now == shapes, f"parameters changed: {sorted(set(now.items()) ^ set(shapes.items()))[:2]}")


def _meter(task: Task, model: nn.Module, held: dict[str, Any], views: list[View], split: str) -> None:
    meter = task.meter(split)
    for part in task.parts(split):
        batch = held[f"samples of {part}"]
        for view in views:
            meter.update(task.predict(model, batch, view.grid, held["prepare"]), batch, view, part)
    meter.merge()
    try:
        rows = meter.rows()
    except TaskError:
        # some metrics are defined over a whole split only (AP, k-NN with more neighbours than samples): says so itself
        return
    _require({v for v, _, _ in rows} == set(views), "not one row for each view")
    for _, metrics, samples in rows:
        _require(task.card.metric.name in metrics, f"metric {task.card.metric.name!r} is not among {sorted(metrics)}")
        _require(samples is None or "ids" in samples, "per-sample values need their ids")
