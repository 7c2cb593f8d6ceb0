"""Opens the trained model behind a row, for use after the run."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from backbones import build_backbone
from backbones.trust import trusting
from benchmarks.engine.identity import candidate_key
from benchmarks.engine.suite import changed
from benchmarks.engine.training.checkpoints import open_checkpoint
from benchmarks.store import Row, Store
from tasks import build_task
from tasks.contract import Recipe, Task, TaskError


def find_row(store: Store, wanted: Mapping[str, Any]) -> Row:
    """The newest row whose values match `wanted` (wildcards; keys as in rows, or `data` for the task's option).

    Raises: TaskError naming what the folder has instead.

    Example: `find_row(Store("results/runs/demo"), {"task": "detection", "backbone": "flexivit_*", "train_grid": 8})`
    """

    def value(row: Row, key: str) -> str:
        return str(row.options.get("data", "") if key == "data" else row.get(key))

    rows = [r for r in store.rows() if r.status == "ok"]
    found = [r for r in rows if all(fnmatch.fnmatch(value(r, k), str(v)) for k, v in wanted.items())]
    if found:
        return found[-1]
    asked = " ".join(f"{k}={v}" for k, v in wanted.items())
    keys = ["task", *(k for k in wanted if k != "task")]
    there = sorted({" ".join(f"{k}={value(r, k)}" for k in keys) for r in rows})
    raise TaskError(f"{store.path} has no row with {asked}; it has: {'; '.join(there) or 'none'}")


def reopen(store: Store, row: Row, data_root: str | Path, device: str = "cpu") -> tuple[Task, nn.Module]:
    """Task and model of a row, in eval mode; only its weights file and the backbone's are opened, no data.

    Raises: TaskError where the weights of the row are no longer in the folder, cannot be read or are not its model's;
    ValueError where it names code to be imported and the store is not trusted.

    Example: `task, model = reopen(store, find_row(store, {"task": "retrieval"}), "data")`
    """
    with trusting(store.trust):
        return _opened(store, row, Path(data_root), device)


def _opened(store: Store, row: Row, data_root: Path, device: str) -> tuple[Task, nn.Module]:
    task = build_task(row.task, data_root, dict(row.options), row.seed or 0)
    known = {f.name for f in fields(Recipe)}
    recipe, key = Recipe(**{k: v for k, v in row.recipe.items() if k in known}), row.train_key or ""
    if recipe.candidates:
        winner = recipe.candidates[row.training.get("won", 0)]
        recipe = changed(changed(recipe, {"candidates": ()}), winner)
        key = candidate_key(key, recipe) if "won" in row.training else key  # a single one competes with nobody
    task.recipe = recipe
    model = task.model(build_backbone(row.backbone, **row.backbone_options))
    if recipe.steps:
        path = store.folder / "checkpoints" / Path(f"{key}.pt").name  # what a row says cannot lead out of the folder
        if not path.exists():
            raise TaskError(f"the weights of {row.label!r} are gone: no {path}; run the suite again")
        kept = open_checkpoint(path, torch.device("cpu"))
        try:
            model.load_state_dict(kept["model"])
        except (KeyError, TypeError, RuntimeError, AttributeError) as error:
            why = " ".join(str(error).split())[:300]
            raise TaskError(f"{path} does not hold the weights of {row.label!r}: {why}") from error
    return task, model.to(device).eval()
