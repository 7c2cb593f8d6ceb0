"""What a suite file may hold: its keys and their types, read strictly."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from benchmarks.engine.suite.reading import LARGEST, Document, SuiteError, near
from tasks.data.errors import shown


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _grid(value: Any) -> Any:
    pair = isinstance(value, list) and len(value) == 2 and all(type(v) is int for v in value)
    if value is None or pair or (isinstance(value, int | str) and not isinstance(value, bool)):
        return value
    raise ValueError("a grid is 15, [8, 10], 8x10, or a schedule such as random:5,8,15")


class TrainSpec(_Strict):
    """A training grid or schedule, or a patch in pixels of the task's image."""

    grid: Annotated[Any, BeforeValidator(_grid)] = None
    patch: int | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> TrainSpec:
        if (self.grid is None) == (self.patch is None):
            raise ValueError("write either grid or patch")
        return self


class EvalSpec(TrainSpec):
    """A grid or patch to evaluate at, with a resize method and options of the task."""

    resize: str | None = None  # None: the backbone's own
    options: dict[str, Any] = Field(default_factory=dict)


def _entry(value: Any) -> Any:
    return value if isinstance(value, dict) else {"grid": value}


TrainEntry = Annotated[TrainSpec, BeforeValidator(_entry)]
EvalEntry = Annotated[EvalSpec, BeforeValidator(_entry)]


class BackboneEntry(_Strict):
    """A backbone with its own options; `flexible`: was it trained at many grids, where nothing else says so?"""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    flexible: bool | None = None
    train: list[TrainEntry] | None = None  # instead of the task's


Backbones = list[Annotated[BackboneEntry, BeforeValidator(lambda v: {"name": v} if isinstance(v, str) else v)]]


Seed = Annotated[int, Field(ge=0, lt=LARGEST)]


class TaskEntry(_Strict):
    """A task with its options and changes to its recipe; what it leaves out is taken from the top."""

    task: str
    options: dict[str, Any] = Field(default_factory=dict)
    recipe: dict[str, Any] = Field(default_factory=dict)
    splits: list[str] | None = None
    backbones: Backbones | None = None
    train: list[TrainEntry] | None = None
    eval: list[EvalEntry] | None = None
    seeds: list[Seed] | None = None


class SuiteSpec(_Strict):
    """A suite file."""

    name: str = Field(min_length=1)
    description: str = ""
    imports: list[str] = Field(default_factory=list)
    backbones: Backbones = []
    train: list[TrainEntry] = []
    eval: list[EvalEntry] = []
    seeds: list[Seed] = [0]
    tasks: list[Annotated[TaskEntry, BeforeValidator(lambda v: {"task": v} if isinstance(v, str) else v)]]


def validated(document: Document) -> SuiteSpec:
    """The suite of a document.

    Raises: SuiteError for the first key that there is not, or value of another type, with its place.
    """
    try:
        return SuiteSpec.model_validate(document.raw)
    except ValidationError as error:
        raise _first_problem(error, document) from None


def without(entry: TaskEntry, names: Sequence[str]) -> TaskEntry:
    """An entry without some changes to its recipe."""
    return entry.model_copy(update={"recipe": {n: v for n, v in entry.recipe.items() if n not in names}})


def refuse_not_finite(document: Document) -> None:
    """Options that are not numbers or have no end are in no row, as JSON has none; recipes say more of theirs.

    Raises: SuiteError for the first one, with its place.
    """
    for where, value in _leaves(document.raw):
        if isinstance(value, float) and not math.isfinite(value) and "recipe" not in where:
            name = ".".join(map(str, where))
            raise document.error(where, f"{name} must be a finite number, not {value}")


def _leaves(value: Any, where: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inner is None:
        yield where, value
    else:
        for key, own in inner:
            yield from _leaves(own, (*where, key))


def _first_problem(error: ValidationError, document: Document) -> SuiteError:
    problem = error.errors()[0]
    where = tuple(p for p in problem["loc"] if not (isinstance(p, str) and p.startswith("function-")))
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if problem["type"] == "extra_forbidden":
        message = f"no key {where[-1]!r} here; {near(where[-1], _keys_at(where[:-1]))}"
    elif problem["type"] == "missing":
        message = f"key {where[-1]!r} is missing"
    else:
        told = problem["msg"].removeprefix("Value error, ")
        message = f"{'.'.join(map(str, where))}: {told}, not {shown(problem['input'], 200)}"
    return document.error(where, f"{message}{more}")


def _keys_at(where: tuple) -> list[str]:
    names = [p for p in where if isinstance(p, str)]
    kinds: dict[str, type[BaseModel]] = {
        "tasks": TaskEntry, "backbones": BackboneEntry, "train": TrainSpec, "eval": EvalSpec,
    }  # fmt: skip
    return list(kinds.get(names[-1] if names else "", SuiteSpec).model_fields)
