"""From a suite file to cells: each task, backbone, training grid and seed, with the views it is evaluated under."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backbones import backbone_spec, list_backbones
from backbones.grids import METHODS, Grid, grid_from_patch, parse_schedule, patch_size
from backbones.registry import check_options
from backbones.zoo.files import is_file_name
from benchmarks.engine.suite.changes import apply_setting, cell_filter, settings_of, unknown_name, what_there_is
from benchmarks.engine.suite.reading import Document, SuiteError, near, read_document
from benchmarks.engine.suite.recipes import check_recipe, recipe_of
from benchmarks.engine.suite.spec import (
    EvalSpec,
    SuiteSpec,
    TaskEntry,
    TrainSpec,
    refuse_not_finite,
    validated,
    without,
)
from benchmarks.store.failures import one_line
from tasks import build_task, list_tasks, task_class
from tasks.contract import Task, View
from tasks.contract.recipe import RecipeError

FOLDER = Path(__file__).parents[2] / "suites"
SPLITS = ("train", "minival", "val", "test")  # any task may be asked for these


@dataclass(frozen=True)
class Cell:
    """One task, one backbone, one training grid, one seed; a row for each split and view.

    Args:
        train: a schedule as `parse_schedule` reads it, None where nothing is trained.
        views: with the resize method that is effective.
        flexible: what the suite says of the backbone; None: nothing.
        problem: why the cell cannot be run, with its place in the file; empty where it can.
        apart: what tells the cell from others of its suite with the same task, data, backbone, training grid and seed.
    """

    suite: str
    task: str
    options: Mapping[str, Any]
    recipe: Mapping[str, Any]
    backbone: str
    backbone_options: Mapping[str, Any]
    train: str | None
    views: tuple[View, ...]
    splits: tuple[str, ...]
    seed: int = 0
    flexible: bool | None = None
    problem: str = ""
    apart: str = ""

    @property
    def label(self) -> str:
        """How logs and errors name the cell."""
        data = f"/{self.options['data']}" if "data" in self.options else ""
        protocol = "".join(f"/{self.options[name]}" for name in ("protocol", "preset") if name in self.options)
        trained = f" trained at {self.train}" if self.train else ""
        apart = f" ({self.apart})" if self.apart else ""
        return f"{self.task}{data}{protocol} {self.backbone}{trained} seed {self.seed}{apart}"


@dataclass
class Suite:
    """A read suite. `imports`: modules that register its plug-ins, already imported here."""

    name: str
    description: str
    path: Path
    cells: list[Cell] = field(default_factory=list)
    imports: tuple[str, ...] = ()


def cell_task(cell: Cell, data_root: str | Path) -> Task:
    """The cell's task with the cell's recipe.

    Raises: TaskError for a recipe value of the wrong kind.
    """
    task = build_task(cell.task, data_root, dict(cell.options), cell.seed)
    task.recipe = recipe_of(task.recipe, cell.recipe)[0]
    return task


def list_suites() -> dict[str, Path]:
    """Names of the suites that come with the software, and their files.

    Example: `list_suites()["mini/classification"]`
    """
    return {p.relative_to(FOLDER).with_suffix("").as_posix(): p for p in sorted(FOLDER.rglob("*.yaml"))}


def find_suite(name: str) -> Path:
    """The file of a suite's name, or the path itself.

    Raises: SuiteError naming the nearest suites.
    """
    known = list_suites()
    if name in known:
        return known[name]
    if name.endswith((".yaml", ".yml")):
        if not os.path.isfile(name):  # False for a name that no file can have, too
            raise SuiteError(f"no suite file {name}")
        return Path(name)
    raise SuiteError(f"no suite {name!r}; {near(name, known)}; or the path of a .yaml file")


def load_suite(name: str, data_root: str | Path = ".", settings: Sequence[str] = (), only: Sequence[str] = ()) -> Suite:
    """Read a suite and write out its cells.

    Args:
        name: of a known suite, or a path.
        settings: `key=value` changes, dotted: `seeds=[0,1]`, `tasks.0.recipe.steps=50`, `recipe.steps=50` (all tasks).
        only: `task=classification`, `backbone=flexivit_*`, `train=8`, `data=cars98`, `protocol=knn`, `seed=0`, and
            whatever the suite sets, such as `steps=600`; values may be wildcards and lists with `|`.

    Raises: SuiteError with file and line, or the setting, for a name that there is not and a value of another type.
    What is of the right type and cannot be (a negative rate, a warm-up as long as the training) is a cell with a
    `problem`. Nothing is built or read of the data.

    Example: `load_suite("mini/classification", "data", only=["backbone=flexivit_nano"]).cells`
    """
    document = read_document(find_suite(name))
    for setting in settings:
        apply_setting(document, setting)
    spec, chosen = validated(document), [cell_filter(o) for o in only]
    for number, module in enumerate(spec.imports):
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:  # whatever a stranger's module does when it is imported
            raise document.error(("imports", number), f"cannot import {module!r}: {one_line(error)}") from None
    refuse_not_finite(document)
    suite = Suite(spec.name, spec.description, document.path, imports=tuple(spec.imports))
    found: list[Cell] = []
    for number, entry in enumerate(spec.tasks):
        found += _TaskCells(document, spec, entry, ("tasks", number), Path(data_root)).cells()
    if found and (odd := unknown_name(found, only)):
        raise SuiteError(f"{document.path}: {odd}")
    suite.cells += [cell for cell in _told_apart(found) if all(match(cell) for match in chosen)]
    if not suite.cells:
        told = f" by --only {' '.join(only)}; {what_there_is(found, only)}" if only else ""
        raise SuiteError(f"{document.path}: no cell is left{told}")
    return suite


def _told_apart(cells: Sequence[Cell]) -> list[Cell]:
    """The same cells; those that would have one label say what they differ in, as `patch=8, positions=7`."""
    alike: dict[str, list[Cell]] = {}
    for cell in cells:
        alike.setdefault(cell.label, []).append(cell)
    differs: dict[str, set[str]] = {}
    for label, group in alike.items():
        settings = [settings_of(cell) for cell in group] if len(group) > 1 else []
        names = {name for own in settings for name in own}
        differs[label] = {name for name in names if len({own.get(name) for own in settings}) > 1}
    return [
        replace(cell, apart=", ".join(f"{k}={v}" for k, v in settings_of(cell).items() if k in own)) if own else cell
        for cell in cells
        for own in (differs[cell.label],)
    ]


class _TaskCells:
    """The cells of one entry of `tasks`. `where`: its place in the document."""

    def __init__(self, document: Document, spec: SuiteSpec, entry: TaskEntry, where: tuple, data_root: Path):
        self.document, self.spec, self.entry, self.where, self.root = document, spec, entry, where, data_root
        if entry.task not in list_tasks() and ":" not in entry.task:
            raise document.error((*where, "task"), f"no task {entry.task!r}; {near(entry.task, list_tasks())}")
        self.task = self._built(entry.options, (*where, "options"), (*where, "task"))
        self.side = self.task.card.image_size
        if self.task.untrained:  # what is set for all tasks means those that train
            set_for_all = [
                n for n in entry.recipe if document.settings.get((*where, "recipe", n), "").startswith("recipe.")
            ]
            entry = self.entry = without(entry, set_for_all)
        self.problem = self._recipe()
        self.task.recipe = recipe_of(self.task.recipe, entry.recipe)[0]

    def _built(self, options: Mapping[str, Any], where: tuple, otherwise: tuple) -> Task:
        """The task under some options. The fault of a single one is told at its own line."""
        try:
            return build_task(self.entry.task, self.root, dict(options))
        except Exception as error:  # a name of data may be too long to ask for; a plug-in may raise anything
            if not isinstance(error, ValueError | OSError) and task_class(self.entry.task).__module__.startswith(
                "tasks."
            ):
                raise  # a fault of ours is told as one
            guilty = next((name for name in options if self._guilty(name, options)), None)
            place = (*where, guilty) if guilty else where if options else otherwise
            told = error if isinstance(error, ValueError | OSError) else f"{self.entry.task}: {one_line(error)}"
            raise self.document.error(place, told) from None

    def _guilty(self, name: str, options: Mapping[str, Any]) -> bool:
        """Whether the task can be built without the option."""
        try:
            build_task(self.entry.task, self.root, {k: v for k, v in options.items() if k != name})
        except Exception:
            return False
        return True

    def _recipe(self) -> str:
        """What is the matter with the recipe as a whole, with its place. Raises SuiteError for names and types."""
        changes, place = self.entry.recipe, (*self.where, "recipe")
        for name, value in changes.items():
            try:
                self.task.recipe.replaced({name: value})
            except ValueError as error:
                raise self.document.error((*place, name), error) from None
        try:
            check_recipe(recipe_of(self.task.recipe, changes)[0], self.task.untrained)
        except RecipeError as error:
            field = error.field if error.field in changes else next((n for n in changes if n == "steps"), "")
            return str(self.document.error((*place, field), error))
        except ValueError as error:
            raise self.document.error(place, error) from None
        return ""

    def _pick(self, name: str) -> tuple[Any, tuple]:
        own = getattr(self.entry, name)
        return (own, (*self.where, name)) if own is not None else (getattr(self.spec, name), (name,))

    def cells(self) -> list[Cell]:
        """Raises: SuiteError where there is nothing to evaluate at, or nothing to evaluate."""
        entry, task = self.entry, self.task
        (backbones, at_backbones), (trains, at_train) = self._pick("backbones"), self._pick("train")
        (evals, at_eval), (seeds, _) = self._pick("eval"), self._pick("seeds")
        splits, found = self._splits(), []
        for place, backbone in enumerate(backbones):
            at = (*at_backbones, place)
            usual = self._check_backbone(backbone.name, backbone.options, at)
            own = backbone.train is not None
            listed, at_listed = (backbone.train, (*at, "train")) if own else (trains, at_train)
            trained = bool(task.recipe.steps or task.recipe.candidates)
            # the suite's seeds are of training runs; where nothing is trained they would repeat one number
            apply = seeds if trained or entry.seeds is not None else seeds[:1]
            schedules = [self._schedule(g, (*at_listed, i)) for i, g in enumerate(listed)] if trained else [None]
            for schedule in dict.fromkeys(schedules):
                views = [self._view(g, schedule, usual, (*at_eval, i)) for i, g in enumerate(evals)]
                cell = Cell(
                    self.spec.name, entry.task, entry.options, entry.recipe, backbone.name, backbone.options, schedule,
                    tuple(dict.fromkeys(v for v in views if v)), splits, 0, backbone.flexible, self.problem,
                )  # fmt: skip
                found += [replace(cell, seed=seed) for seed in dict.fromkeys(apply)]
        if any(not c.views for c in found):
            raise self.document.error(self.where, f"{entry.task} has no grid to evaluate at; write eval: [8, 15]")
        if not found:
            raise self.document.error(self.where, f"{entry.task} has no backbones, no seeds, or no grids to train at")
        return found

    def _splits(self) -> tuple[str, ...]:
        known, asked = self.task.card.splits, self.entry.splits
        if not asked:
            return (next((s for s in ("test", "val") if s in known), "test"),)
        for number, split in enumerate(asked):
            if known and split not in known and split not in SPLITS:
                told = f"{self.entry.task} has no split {split!r}; {near(split, known)}"
                raise self.document.error((*self.where, "splits", number), told)
        return tuple(dict.fromkeys(asked))

    def _check_backbone(self, name: str, options: Mapping[str, Any], where: tuple) -> str:
        """The resize method that the backbone has of its own. Raises SuiteError for a name or method there is not."""
        named = ":" not in name and not is_file_name(name)
        if named and name not in list_backbones():
            try:
                backbone_spec(name)
            except ValueError as error:  # the nearest names, or why an entry point of this name cannot be loaded
                raise self.document.error(where, error) from None
        method = self._method(options.get("resize", "pi"), (*where, "options", "resize"))
        for option, value in options.items():
            try:
                check_options(name, {option: value})
            except ValueError as error:
                raise self.document.error((*where, "options", option), error) from None
        return method

    def _method(self, name: Any, where: tuple) -> str:
        if name not in METHODS:
            raise self.document.error(where, f"no resize method {name!r}; {near(name, METHODS)}")
        return name

    def _schedule(self, spec: TrainSpec, where: tuple) -> str:
        """Canonical text of a training grid or schedule."""
        try:
            if spec.patch is not None:
                height, width = grid_from_patch(self.side, spec.patch)
                return f"{height}" if height == width else f"{height}x{width}"
            value = tuple(spec.grid) if isinstance(spec.grid, list) else spec.grid
            for grid in parse_schedule(value).grids:
                patch_size(self.side, grid)
            return "x".join(map(str, value)) if isinstance(value, tuple) else "".join(str(value).split())
        except (ValueError, TypeError) as error:
            raise self.document.error(where, error) from None

    def _view(self, spec: EvalSpec, schedule: str | None, usual: str, where: tuple) -> View | None:
        """A view; `same` is the training grid (None where nothing is trained or the grid changes)."""
        resize = self._method(spec.resize or usual, (*where, "resize"))
        if spec.grid == "same":
            parsed = parse_schedule(schedule) if schedule else None
            return self._tried(parsed.grids[0], resize, spec, where) if parsed and parsed.kind == "fixed" else None
        text = self._schedule(spec, where)
        parsed = parse_schedule(text)
        if parsed.kind != "fixed":
            raise self.document.error(where, f"evaluation needs a grid, not the schedule {text!r}")
        return self._tried(parsed.grids[0], resize, spec, where)

    def _tried(self, grid: Grid, resize: str, spec: EvalSpec, where: tuple) -> View:
        """A view whose options the task takes: their names, stages and types, and their values beside its own."""
        for name, value in spec.options.items():
            try:
                self.task.at(View(grid, options={name: value}))
            except ValueError as error:
                raise self.document.error((*where, "options", name), error) from None
        if spec.options:
            self._built({**self.entry.options, **spec.options}, (*where, "options"), where)
        return View(grid, resize, tuple(spec.options.items()))
