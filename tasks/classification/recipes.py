"""Published recipes by data set, as `protocol.yaml` has them; for all others the search on minival."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.contract import Recipe
from tasks.protocols import protocol

PROTOCOL = protocol("classification")
IMAGE_SIZE: int = PROTOCOL.value("image_size")


@dataclass(frozen=True)
class Published:
    """`crop`: training crop of the published recipe, inception or resmall; `image_size`: pixels per side."""

    recipe: Recipe
    crop: str
    image_size: int = IMAGE_SIZE


def published(name: str) -> Published:
    """The recipe of a set; of one without, the search.

    Example: `published("pets").recipe.steps == 500`
    """
    found = PROTOCOL.recipe(name if name in PROTOCOL.recipes else "searched")
    return Published(found.made(), **found.settings)
