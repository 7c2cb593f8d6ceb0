"""Suites: YAML files that name backbones x tasks x training grids x views x seeds, read to a list of cells."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from backbones.grids import METHODS, Grid, grid_from_patch, parse_schedule, patch_size
from tasks import build_task, list_tasks
from tasks.contract import Task, View

FOLDER = Path(__file__).parents[1] / "suites"


class SuiteError(ValueError):
    """A suite that cannot be read: one line with file, line and the nearest valid names."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GridSpec(_Strict):
    """A grid, or a patch in pixels of the task's image; in evaluation also a resize method and task options."""

    grid: Any = None
    patch: int | None = None
    resize: str = "pi"
    options: dict[str, Any] = Field(default_factory=dict)


def _grid_spec(value: Any) -> Any:
    return {"grid": value} if isinstance(value, int | str | list) else value


GridEntry = Annotated[GridSpec, BeforeValidator(_grid_spec)]


class BackboneSpec(_Strict):
    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    train: list[GridEntry] | None = None  # instead of the task's


Backbones = list[Annotated[BackboneSpec, BeforeValidator(lambda v: {"name": v} if isinstance(v, str) else v)]]


class TaskSpec(_Strict):
    task: str
    options: dict[str, Any] = Field(default_factory=dict)
    recipe: dict[str, Any] = Field(default_factory=dict)
    splits: list[str] | None = None
    backbones: Backbones | None = None
    train: list[GridEntry] | None = None
    eval: list[GridEntry] | None = None
    seeds: list[int] | None = None


class SuiteSpec(_Strict):
    """A suite file. What a task leaves out (backbones, train, eval, seeds) is taken from the top."""

    name: str
    description: str = ""
    imports: list[str] = Field(default_factory=list)
    backbones: Backbones = []
    train: list[GridEntry] = []
    eval: list[GridEntry] = []
    seeds: list[int] = [0]
    tasks: list[Annotated[TaskSpec, BeforeValidator(lambda v: {"task": v} if isinstance(v, str) else v)]]


@dataclass(frozen=True)
class Cell:
    """One task, one backbone, one training grid, one seed; a row for each split and view.

    `train` is a schedule as `parse_schedule` reads it, None where nothing is trained.
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

    @property
    def label(self) -> str:
        """How logs and errors name the cell."""
        data = f"/{self.options['data']}" if "data" in self.options else ""
        protocol = "".join(f"/{self.options[name]}" for name in ("protocol", "preset") if name in self.options)
        trained = f" trained at {self.train}" if self.train else ""
        return f"{self.task}{data}{protocol} {self.backbone}{trained} seed {self.seed}"


@dataclass
class Suite:
    """A read suite. `imports`: modules that register its plug-ins, already imported here."""

    name: str
    description: str
    path: Path
    cells: list[Cell] = field(default_factory=list)
    imports: tuple[str, ...] = ()


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
        if not Path(name).is_file():
            raise SuiteError(f"no suite file {name}")
        return Path(name)
    raise SuiteError(f"no suite {name!r}; {_near(name, known)}; or the path of a .yaml file")


def load_suite(name: str, data_root: str | Path = ".", settings: Sequence[str] = (), only: Sequence[str] = ()) -> Suite:
    """Read a suite and write out its cells.

    Args:
        name: of a known suite, or a path.
        settings: `key=value` changes, dotted: `seeds=[0,1]`, `tasks.0.recipe.steps=50`, `recipe.steps=50` (all tasks).
        only: `task=classification`, `backbone=flexivit_*`, `train=8`, `data=cars98`, `seed=0`; values may be wildcards
            and lists with `|`.

    Raises: SuiteError with file and line; nothing is built or read of the data.

    Example: `load_suite("mini/classification", "data", only=["backbone=flexivit_nano"]).cells`
    """
    path = find_suite(name)
    text = path.read_text(encoding="utf-8")
    try:
        node, raw = yaml.compose(text), yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise SuiteError(f"{path}{line}: not YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(raw, dict):
        raise SuiteError(f"{path}:1: a suite is a mapping with name, backbones and tasks")
    for setting in settings:
        _set(raw, setting)
    try:
        spec = SuiteSpec.model_validate(raw)
    except ValidationError as error:
        raise SuiteError(_first_problem(error, path, node)) from None
    return _written_out(spec, path, node, Path(data_root), only)


def _written_out(spec: SuiteSpec, path: Path, node: Any, data_root: Path, only: Sequence[str]) -> Suite:
    for number, module in enumerate(spec.imports):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise SuiteError(f"{path}:{_line(node, ('imports', number))}: cannot import {module}: {error}") from None
    chosen = [_filter(o) for o in only]
    suite = Suite(spec.name, spec.description, path, imports=tuple(spec.imports))
    for number, entry in enumerate(spec.tasks):
        where = ("tasks", number)
        if entry.task not in list_tasks() and ":" not in entry.task:
            line = _line(node, (*where, "task"))
            raise SuiteError(f"{path}:{line}: no task {entry.task!r}; {_near(entry.task, list_tasks())}")
        try:
            task = build_task(entry.task, data_root, entry.options)
        except ValueError as error:
            raise SuiteError(f"{path}:{_line(node, (*where, 'options'))}: {error}") from None
        _check_recipe(task, entry.recipe, path, node, where)
        for cell in _cells(spec, entry, task, path, node, where):
            if all(match(cell) for match in chosen):
                suite.cells.append(cell)
    if not suite.cells:
        raise SuiteError(f"{path}: no cell is left" + (f" by --only {' '.join(only)}" if only else ""))
    return suite


def _cells(spec: SuiteSpec, entry: TaskSpec, task: Task, path: Path, node: Any, where: tuple) -> list[Cell]:
    def pick(name: str) -> tuple[Any, tuple]:
        own = getattr(entry, name)
        return (own, (*where, name)) if own is not None else (getattr(spec, name), (name,))

    backbones, at_backbones = pick("backbones")
    trains, at_train = pick("train")
    evals, at_eval = pick("eval")
    seeds, _ = pick("seeds")
    side = task.card.image_size
    splits = tuple(entry.splits or [next((s for s in ("test", "val") if s in task.card.splits), "test")])
    steps = entry.recipe.get("steps", task.recipe.steps)
    cells = []
    for place, backbone in enumerate(backbones):
        _check_backbone(backbone.name, path, node, (*at_backbones, place))
        own = backbone.train is not None
        listed, at = (backbone.train, (*at_backbones, place, "train")) if own else (trains, at_train)
        schedules = [_schedule(g, side, path, node, (*at, i)) for i, g in enumerate(listed)] if steps else [None]
        for schedule in dict.fromkeys(schedules):
            views = [_view(g, schedule, task, path, node, (*at_eval, i)) for i, g in enumerate(evals)]
            cells += [
                Cell(
                    spec.name, entry.task, entry.options, entry.recipe, backbone.name, backbone.options, schedule,
                    tuple(dict.fromkeys(v for v in views if v)), splits, seed,
                )
                for seed in seeds
            ]  # fmt: skip
    if any(not c.views for c in cells):
        raise SuiteError(f"{path}:{_line(node, where)}: {entry.task} has no grid to evaluate at; write eval: [8, 15]")
    if not cells:
        raise SuiteError(f"{path}:{_line(node, where)}: {entry.task} has no backbones, or no grids to train at")
    return cells


def _schedule(spec: GridSpec, side: int, path: Path, node: Any, where: tuple) -> str:
    """Canonical text of a training grid or schedule."""
    try:
        if spec.patch is not None:
            height, width = grid_from_patch(side, spec.patch)
            return f"{height}" if height == width else f"{height}x{width}"
        value = tuple(spec.grid) if isinstance(spec.grid, list) else spec.grid
        for grid in parse_schedule(value).grids:
            patch_size(side, grid)
        return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
    except (ValueError, TypeError) as error:
        raise SuiteError(f"{path}:{_line(node, where)}: {error}") from None


def _view(spec: GridSpec, schedule: str | None, task: Task, path: Path, node: Any, where: tuple) -> View | None:
    """A view; `same` is the training grid (None where nothing is trained or the grid changes)."""
    at, side = (task, path, node, where), task.card.image_size
    if spec.resize not in METHODS:
        line = _line(node, (*where, "resize"))
        raise SuiteError(f"{path}:{line}: no resize method {spec.resize!r}; there are: {', '.join(METHODS)}")
    if spec.grid == "same":
        parsed = parse_schedule(schedule) if schedule else None
        return _as_view(parsed.grids[0], spec, *at) if parsed and parsed.kind == "fixed" else None
    text = _schedule(spec, side, path, node, where)
    parsed = parse_schedule(text)
    if parsed.kind != "fixed":
        raise SuiteError(f"{path}:{_line(node, where)}: evaluation needs a grid, not the schedule {text!r}")
    return _as_view(parsed.grids[0], spec, *at)


def _as_view(grid: Grid, spec: GridSpec, task: Task, path: Path, node: Any, where: tuple) -> View:
    """A view whose options have been tried: their names, and their values beside the task's own."""
    view = View(grid, spec.resize, tuple(spec.options.items()))
    for name, value in spec.options.items():
        try:
            task.at(View(grid, options={name: value}))
            type(task)(task.root, {**task.options.stage("train"), **task.options.stage("eval"), name: value}, task.seed)
        except ValueError as error:
            raise SuiteError(f"{path}:{_line(node, (*where, 'options', name))}: {error}") from None
    return view


def _check_recipe(task: Task, recipe: Mapping[str, Any], path: Path, node: Any, where: tuple) -> None:
    known = list(vars(task.recipe))
    for name in recipe:
        if name not in known:
            line = _line(node, (*where, "recipe", name))
            raise SuiteError(f"{path}:{line}: a recipe has no {name!r}; {_near(name, known)}")


def _check_backbone(name: str, path: Path, node: Any, where: tuple) -> None:
    from backbones import list_backbones

    if ":" in name or name.endswith((".npz", ".safetensors")) or name in (known := list_backbones()):
        return
    raise SuiteError(f"{path}:{_line(node, where)}: no backbone {name!r}; {_near(name, known)}")


def _near(name: str, known: Any) -> str:
    near = difflib.get_close_matches(str(name), list(known), 3, 0.4)
    return f"nearest: {', '.join(near)}" if near else f"there are: {', '.join(sorted(known))}"


def _filter(text: str) -> Any:
    import fnmatch

    name, equals, wanted = text.partition("=")
    fields = ("task", "backbone", "train", "seed", "data", "protocol")
    if not equals or name not in fields:
        raise SuiteError(f"--only {text!r} is not NAME=VALUE with NAME one of: {', '.join(fields)}")
    patterns = wanted.split("|")

    def match(cell: Cell) -> bool:
        value = cell.options.get(name) if name in ("data", "protocol") else getattr(cell, name)
        return any(fnmatch.fnmatch(str(value), p) for p in patterns)

    return match


def _set(raw: dict[str, Any], setting: str) -> None:
    """Change one dotted key in place; `recipe.X` and `options.X` mean those of every task."""
    dotted, equals, text = setting.partition("=")
    if not equals:
        raise SuiteError(f"--set {setting!r} is not KEY=VALUE, such as recipe.steps=50 or seeds=[0,1]")
    keys, value = dotted.split("."), yaml.safe_load(text)
    if keys[0] in ("recipe", "options") and len(keys) > 1:
        for number, entry in enumerate(raw.get("tasks") or []):
            if isinstance(entry, str):
                raw["tasks"][number] = {"task": entry}
            _assign(raw, ["tasks", str(number), *keys], value, setting)
    else:
        _assign(raw, keys, value, setting)


def _assign(place: Any, keys: Sequence[str], value: Any, setting: str) -> None:
    for key in keys[:-1]:
        if isinstance(place, list):
            if not key.isdigit() or int(key) >= len(place):
                raise SuiteError(f"--set {setting!r}: {key!r} is not one of the {len(place)} entries")
            place = place[int(key)]
        else:
            place = place.setdefault(key, {})
        if not isinstance(place, dict | list):
            raise SuiteError(f"--set {setting!r}: {key!r} is not a mapping or a list")
    place[int(keys[-1]) if isinstance(place, list) else keys[-1]] = value


def _first_problem(error: ValidationError, path: Path, node: Any) -> str:
    problem = error.errors()[0]
    where = tuple(p for p in problem["loc"] if not (isinstance(p, str) and p.startswith("function-")))
    if problem["type"] == "extra_forbidden":
        known = _fields_at(where[:-1])
        message = f"no key {where[-1]!r} here; {_near(where[-1], known)}"
    elif problem["type"] == "missing":
        message = f"key {where[-1]!r} is missing"
    else:
        message = f"{'.'.join(map(str, where))}: {problem['msg']}, not {problem['input']!r}"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{path}:{_line(node, where)}: {message}{more}"


def _fields_at(where: tuple) -> list[str]:
    names = [p for p in where if isinstance(p, str)]
    last = names[-1] if names else ""
    kind = {"tasks": TaskSpec, "backbones": BackboneSpec, "train": GridSpec, "eval": GridSpec}.get(last, SuiteSpec)
    return list(kind.model_fields)


def _line(node: Any, where: tuple) -> int:
    """Line (from 1) of the deepest part of `where` that the file has."""
    line = node.start_mark.line + 1
    for key in where:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(key)), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
        else:
            break
    return line
