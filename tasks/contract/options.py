"""What a user may change about a task, and what each change touches."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from tasks.contract.errors import TaskError

STAGES = ("train", "eval")
KINDS = {
    bool: "true or false", int: "an integer", float: "a number", str: "text", list: "a list", dict: "a mapping",
    types.NoneType: "null",
}  # fmt: skip


def option(
    default: Any, stage: str, help: str = "", *, data: bool = False, values: tuple[Any, ...] = (), later: bool = False
) -> Any:  # fmt: skip
    """A field of `Options`.

    Args:
        stage: "train": it changes weights, so it is part of the train key; "eval": it changes rows of a trained model
            and may differ between the views of one model.
        help: for people.
        data: of an option of evaluation: it changes what `Task.dataset` gives for evaluation. Such views do not share a
            pass over the data, and an option without this mark cannot be read by `dataset`.
        values: some that `check task` may set, where they do not follow from the type (of texts and lists).
        later: rows were made without it, so at its default it is in no key.

    Example: `neighbours: int = option(20, "eval", "how many vote")`
    """
    if stage not in STAGES:
        raise TypeError(f'option(..., {stage!r}): the stage is "train" or "eval"')
    metadata = {"stage": stage, "help": help, "data": data or stage == "train", "values": values, "later": later}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Options:
    """Base of a task's options. Every field is declared with `option(default, stage)`; one that is not would be in no
    key, so it is a TypeError when the class is made.

    Example::

        @dataclass(frozen=True)
        class DepthOptions(Options):
            scale: float = option(1.0, "train", "metres a unit of the labels")
    """

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        for name, kind in cls.__dict__.get("__annotations__", {}).items():
            if "ClassVar" in str(kind):
                continue
            value = cls.__dict__.get(name)
            if not isinstance(value, dataclasses.Field) or value.metadata.get("stage") not in STAGES:
                shown = repr(value) if name in cls.__dict__ and not isinstance(value, dataclasses.Field) else "DEFAULT"
                wanted = f'{name}: {getattr(kind, "__name__", kind)} = option({shown}, "train")'
                raise TypeError(f'{cls.__qualname__}: declare {name} as `{wanted}`, or as "eval"')

    @classmethod
    def made(cls, values: Mapping[str, Any] | None) -> Self:
        """Options with some values given by a user.

        Raises: TaskError for a name that there is not, or a value of another type.
        """
        return cls(**cls.checked(values or {}))

    def changed(self, changes: Mapping[str, Any], stage: str) -> Self:
        """A copy with some options of one stage replaced.

        Raises: TaskError for a name that there is not or of another stage, or a value of another type.

        Example: `options.changed({"neighbours": 5}, "eval")`
        """
        return dataclasses.replace(self, **self.checked(changes, stage))

    @classmethod
    def checked(cls, values: Mapping[str, Any], stage: str = "") -> dict[str, Any]:
        """`values` with lists where lists are wanted. Raises TaskError as `made` and `changed` do."""
        known = {f.name: f for f in dataclasses.fields(cls)}
        mine = [n for n, f in known.items() if stage in ("", f.metadata["stage"])]
        hints, found = field_types(cls), {}
        for name, value in values.items():
            if name not in mine:
                told = ", ".join(difflib.get_close_matches(str(name), mine, 3, 0.4) or mine) or "none"
                if name in known:
                    raise TaskError(f"option {name!r} changes weights, so a view cannot set it; a view has: {told}")
                raise TaskError(f"no option {name!r}; nearest: {told}")
            found[name] = fitting(f"option {name}", value, hints.get(name, Any))
        return found

    def stage(self, stage: str) -> dict[str, Any]:
        """The options that matter to `stage`, in declared order: what keys are made of. Those that were added later are
        there where they are set.
        """
        cls: type = type(self)
        own = _fields_of(cls, stage)
        found = {f.name: getattr(self, f.name) for f in own}
        return {f.name: found[f.name] for f in own if not f.metadata["later"] or found[f.name] != f.default}


class Hidden:
    """Options some of which must not be read: what would depend on them is made once for all views, or for training.

    Raises: TaskError where one of them is read.
    """

    def __init__(self, options: Options, names: Iterable[str], where: str, mend: str):
        self._options, self._names, self._where, self._mend = options, frozenset(names), where, mend

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in self._names:
            raise TaskError(f"{self._where} reads the option {name!r}, which it must not depend on; {self._mend}")
        return getattr(self._options, name)

    def __reduce__(self) -> Any:
        return Hidden, (self._options, self._names, self._where, self._mend)


def field_types(cls: type) -> dict[str, Any]:
    """What may stand in each field of a class; looked up once, as suites of thousands of cells ask for it.

    Example: `field_types(Recipe)["steps"]` is int
    """
    return _field_types(cls)


@functools.cache
def _fields_of(cls: type, stage: str) -> tuple[dataclasses.Field[Any], ...]:
    return tuple(f for f in dataclasses.fields(cls) if f.metadata["stage"] == stage)


@functools.cache
def _field_types(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except NameError:  # a type that its module imports for type checkers only
        return {}


def fitting(name: str, value: Any, hint: Any) -> Any:
    """`value` where it is of the type that `hint` says; an integer is a number, true is not, a tuple becomes a list.

    Raises: TaskError naming what it must be.

    Example: `fitting("steps", 100.0, int)` raises "steps must be an integer, not 100.0"
    """
    kinds = _kinds(hint)
    if kinds is None:
        return value
    if list in kinds and isinstance(value, tuple):
        value = list(value)
    if tuple in kinds and isinstance(value, list):
        value = tuple(value)
    if any(_is(value, kind) for kind in kinds):
        return value
    wanted = " or ".join(dict.fromkeys(KINDS.get(k, getattr(k, "__name__", str(k))) for k in kinds))
    whole = f"; write {int(value)}" if isinstance(value, float) and value.is_integer() and int in kinds else ""
    raise TaskError(f"{name} must be {wanted}, not {value!r}{whole}")


def _is(value: Any, kind: type) -> bool:
    if kind is float:
        # an integer above every float is no number that can be computed with
        return isinstance(value, float) or (type(value) is int and abs(value) < 2**1023)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _kinds(hint: Any) -> list[type] | None:
    """The classes that a hint allows; None: anything."""
    if hint is Any:
        return None
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        parts = [_kinds(h) for h in typing.get_args(hint)]
        return None if None in parts else [k for part in parts for k in part or ()]
    if origin is typing.Literal:
        return [type(v) for v in typing.get_args(hint)]
    kind = origin or hint
    if not isinstance(kind, type):
        return None
    return [dict if issubclass(kind, Mapping) and kind is not dict else kind]
