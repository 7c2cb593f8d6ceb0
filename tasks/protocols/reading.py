"""`protocol.yaml`: what a task room takes from publications, where it is written there, and what differs on purpose."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pydantic
import yaml

from tasks.contract import Recipe, TaskError

FOLDER = Path(__file__).parents[1]
FILE = "protocol.yaml"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# `contract` holds what all recipes share: what the words of a recipe mean
ROOMS = ("contract", "classification", "segmentation", "retrieval", "detection", "upstream")


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Constant(_Strict):
    """A value and where it is published: a file of official code, a paper, or `ours`."""

    value: Any
    source: str = pydantic.Field(min_length=1)


class PublishedRecipe(_Strict):
    """A recipe, its source, and settings that belong to it and are no part of `Recipe` (a crop, a size, a teacher)."""

    source: str = pydantic.Field(min_length=1)
    recipe: dict[str, Any] = {}
    settings: dict[str, Any] = {}

    def made(self) -> Recipe:
        """The recipe. Raises TaskError for a name or a kind of value that no recipe has."""
        return Recipe().replaced(self.recipe)


class Difference(_Strict):
    """What differs from the official code on purpose, and why."""

    field: str
    ours: str
    official: str
    reason: str


class Protocol(_Strict):
    """The protocol of a room. `versions`: of each name a card's protocol starts with; raise one when its numbers move.

    Example::

        >>> protocol("classification").recipe("pets").made().steps
        500
    """

    title: str
    versions: dict[str, int] = {}
    sources: dict[str, str]  # short name -> what it stands for, with its revision
    constants: dict[str, Constant] = {}
    recipes: dict[str, PublishedRecipe] = {}
    differs: tuple[Difference, ...] = ()

    def value(self, name: str) -> Any:
        """A constant. Raises: KeyError for a name the file lacks."""
        return self.constants[name].value

    def recipe(self, name: str) -> PublishedRecipe:
        """A recipe by name. Raises: KeyError for a name the file lacks."""
        return self.recipes[name]

    def version(self, name: str) -> str:
        """What a card's protocol ends with.  Example: `protocol("detection").version("detection") == "v3"`"""
        return f"v{self.versions[name]}"


@functools.cache
def protocol(room: str) -> Protocol:
    """The protocol of a task room.

    Raises: TaskError naming the file and the first field that is not as it must be.
    """
    path = FOLDER / room / FILE
    try:
        return Protocol.model_validate(yaml.load(path.read_text(encoding="utf-8"), _LOADER))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise TaskError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
