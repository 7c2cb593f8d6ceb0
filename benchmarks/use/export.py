"""`use export-model`: the trained model of a row at one grid as a file, and whether its row holds for that file."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.deploy import Deployed, deploy, deploy_model
from backbones.deploy.formats import ENDINGS, export_model
from backbones.deploy.opened import ExportedEncoder, ExportedModel, open_exported
from backbones.encoder import Encoder
from backbones.grids import Grid, as_pair
from benchmarks.engine.reopen import find_row, reopen
from benchmarks.engine.sweep import sweep
from benchmarks.store import Row, Store
from tasks.classification.models import Classifier, LinearProbes
from tasks.contract import Task, TaskError, View
from tasks.contract.frozen import Frozen
from tasks.upstream.models import UpstreamModel

CLOSE = 5e-4  # of a metric: 0.05 points; outputs that agree to 1e-5 may still order a near tie otherwise


def view_of(row: Row) -> View:
    """The view that a row was evaluated under."""
    return View(_grid(row.eval_grid), row.resize, dict(row.view_options))


def _grid(text: int | str | None) -> Grid:
    sides = str(text).split("x")
    return as_pair(int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1])))


def linear_head(task: Task, model: nn.Module) -> nn.Module | None:
    """The layer that turns pooled features into the row's logits; None for a model that is more than that.

    A probe's standardisation is folded into its weights, which changes nothing but the rounding.
    """
    if isinstance(model, Classifier):
        return model.head
    if isinstance(model, UpstreamModel):
        return model.backbone.head
    if not isinstance(model, LinearProbes):
        return None
    probe, norm = model.heads[max(0, task.options.probe)], copy.deepcopy(model.norm).double()
    folded = nn.Linear(probe.in_features, probe.out_features)
    with torch.no_grad():
        shift = norm(torch.zeros(1, probe.in_features, dtype=torch.float64))
        scale = norm(torch.ones_like(shift)) - shift
        folded.weight.copy_(probe.weight.double() * scale)
        folded.bias.copy_(probe.bias.double() + probe.weight.double() @ shift[0])
    return folded


def class_names(task: Task) -> list[str]:
    """Names of a task's classes, as far as they are known here."""
    try:
        names = task.labelled("train").classes if hasattr(task, "labelled") else getattr(task, "classes", ())
    except (ValueError, OSError):  # the data are not here; the model is
        return []
    return [str(name) for name in names]


def deployed(task: Task, model: nn.Module, view: View, normalised: bool, notes: Mapping[str, Any]) -> Deployed:
    """A task's trained model at the grid of a view.

    Classifiers give logits. Any other model that is a function of images and grid is taken whole (segmentation: logits
    of a window, from normalised input). Of the others the encoder is taken: pooled features and map.
    """
    task = task.at(view)
    encoder = model.backbone.module if isinstance(model.backbone, Frozen) else model.backbone
    if not isinstance(encoder, Encoder):
        raise TaskError(f"{type(encoder).__name__} is no backbone that can be deployed")
    shared = {"image_size": task.card.image_size, "resize": view.resize, **notes}
    classes = class_names(task)
    if (head := linear_head(task, model)) is not None:
        classes = classes if len(classes) == getattr(head, "out_features", 0) else []
        return deploy(encoder, view.grid, head=head, classes=classes, normalised=normalised, **shared)
    if list(inspect.signature(model.forward).parameters)[:2] == ["images", "grid"]:
        if hasattr(model, "num_classes"):
            return deploy_model(model, view.grid, normalised=True, classes=classes, **shared)
        return deploy_model(model, view.grid, output="vector", normalised=normalised, **shared)
    return deploy(encoder, view.grid, outputs=("pooled", "map", "prefix"), normalised=normalised, **shared)


def export_row(
    run: Path, out: Path, data_root: Path, wanted: Mapping[str, Any], form: str, normalised: bool, trust: bool
) -> tuple[Row, Task, nn.Module, Path]:
    """Write the model behind the newest row that fits; the row, its task, its model and the file.

    Raises: TaskError for a row or weights that are not there; ValueError for a model that the format cannot hold.
    """
    store = Store(run, trust)
    row = find_row(store, wanted)
    task, model = reopen(store, row, data_root)
    notes = {
        "task": row.task, "data": row.options.get("data"), "backbone": row.backbone, "train_grid": row.train_grid,
        "seed": row.seed, "split": row.split, "metric": row.metric, "value": row.metrics.get(row.metric or ""),
        "row": row.row_key, "revision": row.env.get("revision"),
    }  # fmt: skip
    made = deployed(task, model, view_of(row), normalised, notes)
    out = out if out.suffix == ENDINGS[form] else out.with_name(out.name + ENDINGS[form])
    return row, task, model, export_model(made, out, form)


class Scored(nn.Module):
    """A task's model with an exported file in place of its own computation; all else is the model's."""

    def __init__(self, model: nn.Module, exported: ExportedModel):
        super().__init__()
        encoder = Encoder(
            model.backbone.normalisation, tuple(exported.metadata["image_size"]), tuple(exported.metadata["grid"])
        )
        if not exported.metadata["input"].startswith("normalised"):
            encoder.normalise = lambda images: images  # the file does it
        self.backbone = encoder
        self.__dict__["original"], self.exported = model, exported

    def forward(self, images: Tensor, grid: Grid) -> Tensor:
        (given,) = self.exported(images).values()
        original = self.__dict__["original"]
        return given.expand(len(original.heads), -1, -1) if isinstance(original, LinearProbes) else given

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["original"], name)


def check_row(row: Row, task: Task, model: nn.Module, path: Path) -> dict[str, Any]:
    """Score an exported file on the row's split, as the row was.

    Returns: `metric`, `row` and `file` (its values), `difference`, `images`, and `holds`: equal but for 0.05 points or
    one picture.

    Raises: TaskError for a row of a smoke test, or data that are not there.
    """
    if row.limit is not None:
        raise TaskError(f"{row.label} is a smoke test of {row.limit} pictures; nothing holds for it")
    if problems := task.missing():
        raise TaskError(f"--check needs the data of the row: {problems[0]}")
    exported = open_exported(path)
    if {"pooled", "map"} <= set(exported.metadata["outputs"]):
        scored = copy.copy(model)
        scored._modules = dict(model._modules)
        scored.backbone = ExportedEncoder(exported)
    else:
        scored = Scored(model, exported)
    result = sweep(task, scored, [View(_grid(row.eval_grid), None, dict(row.view_options))], row.split or "test")
    if result.failed:
        raise TaskError(f"{path}: {next(iter(result.failed.values()))}")
    (_, metrics, _), name = result.rows[0], row.metric or ""
    ours, theirs = row.metrics[name], metrics[name]
    near = max(CLOSE, 1.01 / max(1, result.images)) if row.measure.get("scale", 100) == 100 else 0.0
    return {
        "metric": name, "split": row.split, "row": ours, "file": theirs, "difference": theirs - ours,
        "images": result.images, "holds": math.isclose(ours, theirs, rel_tol=1e-3, abs_tol=near),
    }  # fmt: skip
