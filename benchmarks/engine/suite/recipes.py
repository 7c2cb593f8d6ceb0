"""The recipe of a cell: the task's own, with what a suite or a user changes about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.contract import Recipe, Task, TaskError
from tasks.contract.recipe import RecipeError


def changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """A recipe with some values replaced; see `recipe_of`, which also tells what follows from it."""
    return recipe_of(recipe, changes)[0]


def recipe_of(recipe: Recipe, changes: Mapping[str, Any]) -> tuple[Recipe, list[str]]:
    """A recipe with some values replaced, and what that entails, a line each.

    A warm-up that was not set and takes more than half of the new steps keeps its share of them. A value that is set is
    no longer searched: of several candidates those that agree with it stay; where none does, what they differ in
    besides.

    Raises: TaskError for a name that no recipe has, a value of another type, or a coupled loss that would be split.

    Example: `recipe_of(task.recipe, {"steps": 50})[1]` is `["warmup of 100 steps scaled to 5"]`
    """
    told, changes, notes = dict(changes), dict(changes), []
    new = recipe.replaced(changes)
    if recipe.coupled and not new.coupled:
        raise TaskError("recipe: coupled is a property of the loss, which looks across the batch; it cannot be unset")
    if "steps" in told and "warmup" not in told and 2 * recipe.warmup > new.steps > 0:
        length = max(recipe.steps, new.steps, 2 * recipe.warmup)
        changes["warmup"] = recipe.warmup * new.steps // length
        notes.append(f"warmup of {recipe.warmup} steps scaled to {changes['warmup']}, as there are {new.steps} steps")
    if recipe.candidates and "candidates" not in told:
        changes |= _left(recipe, told)
    new = recipe.replaced(changes)
    if new.candidates:
        tried = "; ".join(", ".join(f"{k} {v}" for k, v in c.items()) for c in new.candidates)
        left = "" if new.candidates == recipe.candidates else "are left and "
        notes.append(f"{len(new.candidates)} candidates {left}compete on minival: {tried}; candidates: [] trains once")
    return new, notes


def check_recipe(recipe: Recipe, untrained: str = "") -> None:
    """Refuse what cannot be trained, of the recipe itself and of each of its candidates.

    Args: untrained: why the task trains nothing, see `Task.untrained`.

    Raises: RecipeError naming the value.
    """
    if untrained and (recipe.steps or recipe.candidates):
        name = "candidates" if recipe.candidates else "steps"
        raise RecipeError(name, f"{untrained}: leave {name} out")
    recipe.check()
    for candidate in recipe.candidates:
        try:
            changed(recipe.replaced({"candidates": ()}), candidate).check()
        except RecipeError as error:
            raise RecipeError("candidates", f"candidate {dict(candidate)}: {error}") from None


def alone_only(task: Task) -> str:
    """Why several processes cannot train a task together; "" where they can.

    Example: `alone_only(build_task("retrieval", "data"))` is "": its loss gathers the batches of all processes
    """
    if not task.recipe.coupled or not (task.recipe.steps or task.recipe.candidates) or task.gathers:
        return ""
    return "its loss looks across the batch and sees one process's share of it: a process group cannot train it"


def _left(recipe: Recipe, told: Mapping[str, Any]) -> dict[str, Any]:
    """What is left to search. A single candidate that agrees in all that was set is the recipe and not a candidate."""
    given = {n: v for n, v in told.items() if any(n in candidate for candidate in recipe.candidates)}
    if not given:
        return {}
    agreeing = [c for c in recipe.candidates if all(c.get(n, getattr(recipe, n)) == v for n, v in given.items())]
    # a warm-up belongs to its length of training: with another length there is nothing to choose from
    fixed = {*given, "warmup"} if "steps" in given and not agreeing else set(given)
    kept = [{k: v for k, v in c.items() if k not in fixed} for c in agreeing or recipe.candidates]
    distinct = [c for i, c in enumerate(kept) if c and c not in kept[:i]]
    if agreeing and len(distinct) == 1:
        return {**distinct[0], "candidates": ()}
    return {"candidates": tuple(distinct)}
