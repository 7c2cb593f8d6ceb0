"""What makes a row the row it is. Plan, runner, store and report know keys from here alone, so they cannot disagree.

Three keys: the *cell key* hashes what is asked for and needs neither data nor weights; it finds a cell's rows and is
its lock. The *train key* adds what was found: weights and training data. The *row key* adds the split, that split's
own data, the effective view and the options of evaluation. Cost, latency and calibration are in none of them.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.engine.suite.cells import Cell
from benchmarks.engine.weights import hash_of_weights
from benchmarks.store import key_of
from tasks.contract import Recipe, Task, View

PROTOCOL = 1  # of the engine: raise it when training or evaluation moves numbers though nothing else in a key did


def precision_name(mixed: str) -> str:
    """How keys and rows name what accelerate calls `no`, `bf16`, `fp16`."""
    return "float32" if mixed == "no" else mixed


def cell_key(cell: Cell, task: Task) -> str:
    """Hash of what the cell asks for.

    Where nothing is trained, what only training reads (recipe, schedule) is not part of it.

    Example: `store.entries(cell_key(cell, cell_task(cell, "data")))`
    """
    recipe = task.recipe
    trained = bool(recipe.steps or recipe.candidates)
    return key_of({
        "engine": PROTOCOL, "task": cell.task, "protocol": task.card.protocol, "options": task.options.stage("train"),
        "recipe": recipe.decisive() if trained else {"steps": 0}, "train": cell.train if trained else None,
        "backbone": cell.backbone, "more": dict(cell.backbone_options), "seed": cell.seed,
    })  # fmt: skip


def candidate_key(train_key: str, recipe: Recipe) -> str:
    """Key of the weights that one of several competing recipes leaves."""
    return key_of({"cell": train_key, "recipe": recipe.decisive()})


def view_key(task: Task, view: View) -> str:
    """Hash of the effective view: its grid, what the backbone is bound to, all options of evaluation.

    The order in which a suite names options, and an option that is set to its own default, change nothing.
    """
    effective = task.at(view).options.stage("eval")
    return key_of({"grid": view.grid, **view.bindings, "options": effective})


def samples_key(samples: Mapping[str, Any] | None) -> str | None:
    """Hash of per-sample values: two views with the same one have byte-identical samples. None where none are kept."""
    if samples is None:
        return None
    digest = hashlib.sha256()
    for name, value in sorted(samples.items()):
        array = np.ascontiguousarray(np.asarray(value))
        digest.update(f"{name}{array.dtype}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()[:16]


def data_key(row: Mapping[str, Any]) -> str:
    """Hash of all data that a row was made of, training's included; empty where it is not known.

    Rows that differ in it are never in one table.
    """
    known = row.get("data_identity") or {}
    return key_of(known) if known else ""


@dataclass(frozen=True)
class Identity:
    """The keys of a cell.

    Args:
        cell, train: its keys. weights: hash of the backbone's weights.
        train_data: fingerprint of each split that training reads.
        data: of each row, the fingerprints of all parts of the data that its evaluation reads.
        rows: the key of each (split, view). views: the key of each view.
    """

    cell: str
    train: str
    weights: str
    train_data: Mapping[str, str]
    data: Mapping[tuple[str, View], Mapping[str, str]]
    rows: Mapping[tuple[str, View], str]
    views: Mapping[View, str]


class Identities:
    """Identities of cells; weights and data are hashed once for all cells that share them.

    Args:
        precision: of training and evaluation, as `precision_name` says.
        limit: of a smoke test, whose rows have keys of their own; its weights are those of a whole run.
        eval_weights: of the backbone in evaluation, as `evaluation_weights` says; float32 is in no key.

    Example: `Identities("float32").of(cell, task).rows`
    """

    def __init__(self, precision: str, limit: int | None = None, eval_weights: str = "float32"):
        self.precision = precision
        self._part: dict[str, Any] = {} if limit is None else {"limit": limit}
        if eval_weights != "float32":
            self._part["eval_weights"] = eval_weights
        self._data: dict[str, str] = {}
        self._weights: dict[str, str] = {}

    def of(self, cell: Cell, task: Task, asked: str = "") -> Identity:
        """Reads data and weights, unless another cell had the same. `asked`: the cell's key, where it is known.

        Raises: what a task raises for data that is missing or wrong, a backbone for weights that cannot be had.
        """
        asked, weights = asked or cell_key(cell, task), self.weights(cell)
        train_data = {split: self.fingerprint(cell, task, split) for split in _training_splits(task)}
        start = task.start(cell.backbone)
        content = start.content() if start else ""
        more = {"start": content} if content else {}
        train = key_of({"cell": asked, "weights": weights, "data": train_data, "precision": self.precision, **more})
        views = {view: view_key(task, view) for view in cell.views}
        data, rows = {}, {}
        fingerprint = functools.cache(lambda part: self.fingerprint(cell, task, part))
        for split in cell.splits:
            own = task.parts(split)
            for view, key in views.items():
                # the `norm` resize is calibrated on training pictures
                parts = (*own, "train") if view.resize == "norm" else own
                data[split, view] = {part: fingerprint(part) for part in parts}
                found = {"train": train, "split": split, "data": data[split, view], "view": key}
                rows[split, view] = key_of(found | self._part)
        return Identity(asked, train, weights, train_data, data, rows, views)

    def weights(self, cell: Cell) -> str:
        """Hash of the backbone's weights; random ones are told apart by the cell's own seed instead."""
        asked = key_of({"name": cell.backbone, "options": dict(cell.backbone_options)})
        if asked not in self._weights:
            self._weights[asked] = hash_of_weights(cell.backbone, cell.backbone_options)
        return self._weights[asked]

    def fingerprint(self, cell: Cell, task: Task, split: str) -> str:
        """Identity of a split's content, under the options that the task reads it with."""
        where = key_of({"task": cell.task, "options": task.options.stage("train"), "split": split})
        if where not in self._data:
            self._data[where] = task.fingerprint(split)
        return self._data[where]


def _training_splits(task: Task) -> tuple[str, ...]:
    """The splits whose content decides the weights, or which of several is taken."""
    recipe = task.recipe
    trained = ("train",) if recipe.steps or recipe.candidates else ()
    return (*trained, "minival") if recipe.candidates or task.choices() else trained
