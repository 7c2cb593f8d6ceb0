"""Fields of many JSON objects as columns, each value checked: the first bad one is named with its place."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from tasks.data.errors import Wrong, shown

LARGEST = 2**63 - 1
LONGEST = 1e150  # of a box's sides
_ABSENT = object()


class Records:
    """A list of JSON objects of one kind.

    Args: values: what the file holds. path: the file. kind: what one is called in an error, such as `annotation`.
        first: index of the first of `values` in the file, where it comes in chunks. member: the list's name there.
    Raises: Wrong where `values` is no list, or one of them no object. Every method raises Wrong naming file, place,
        field, value and what is allowed.

    Example::

        >>> Records([{"id": 1, "area": None}], "val.json", "annotation").numbers("area")
        Wrong: val.json: annotation 0 (id 1): area must be a finite number, not None
    """

    def __init__(self, values: Any, path: str | Path | None, kind: str, first: int = 0, member: str = ""):
        self.path, self.kind, self.first = path, kind, first
        if not isinstance(values, list):
            raise Wrong(f"must be a list, not {shown(values)}", path=path, field=member or f"{kind}s")
        self.values: list[dict[str, Any]] = values
        if set(map(type, values)) - {dict}:
            at = next(i for i, value in enumerate(values) if type(value) is not dict)
            raise Wrong(f"must be an object, not {shown(values[at])}", path=path, place=self.place(at))

    def __len__(self) -> int:
        return len(self.values)

    def fault(self, at: int, field: str, reason: str, advice: str = "") -> Wrong:
        """The error for one object, to be raised by who checks more than a type."""
        return Wrong(reason, path=self.path, place=self.place(at), field=field, advice=advice)

    def ids(self, field: str) -> np.ndarray:
        """Identifiers: int64 [N], or a column of str where all are texts.

        Example: `records.ids("image_id")`
        """
        values = self._values(field)
        if values and type(values[0]) is str:
            self._demand(field, values, lambda v: type(v) is str and _printable(v), "a text, as in the first place")
            return np.array(values, object)
        return self._integers(field, values, "an integer below 2**63")

    def integers(self, field: str, minimum: int | None = None, default: int | None = None) -> np.ndarray:
        """int64 [N]; whole numbers written as 3.0 are taken. `default` stands where the field is absent."""
        said = "a whole number" if minimum is None else f"a whole number of {minimum} or more"
        found = self._integers(field, self._values(field, default), said)
        if minimum is not None and len(found) and found.min() < minimum:
            at = int(np.argmax(found < minimum))
            raise self.fault(at, field, f"must be {said}, not {found[at]}")
        return found

    def numbers(self, field: str, default: float | None = None, minimum: float | None = None) -> np.ndarray:
        """float64 [N], finite. `default` stands where the field is absent."""
        said = "a finite number" if minimum is None else f"a finite number of {minimum:g} or more"
        values = self._values(field, default)
        if set(map(type, values)) <= {float}:
            found = np.array(values, np.float64)
            if np.isfinite(found).all() and (minimum is None or (found >= minimum).all()):
                return found
        self._demand(field, values, lambda v: _finite(v) and (minimum is None or v >= minimum), said)
        return np.array(values, np.float64)

    def texts(self, field: str, default: str | None = None, empty: bool = False) -> list[str]:
        """Texts; empty ones only where `empty`. `default` stands where the field is absent."""
        said = "a text" if empty else "a text that is not empty"
        values = self._values(field, default)
        self._demand(field, values, lambda v: type(v) is str and _printable(v) and bool(empty or v.strip()), said)
        return values

    def flags(self, field: str, default: bool = False) -> np.ndarray:
        """bool [N] of true, false, 0 and 1."""
        values = self._values(field, default)
        self._demand(field, values, lambda v: type(v) in (bool, int) and v in (0, 1), "0 or 1")
        return np.array(values, bool)

    def boxes(self, field: str = "bbox") -> np.ndarray:
        """float64 [N, 4] of four numbers each, so small that an area is finite too."""
        values = self._values(field)
        if set(map(type, values)) <= {list} and set(map(len, values)) <= {4}:
            flat = list(chain.from_iterable(values))
            if set(map(type, flat)) <= {float} and (np.abs(found := np.array(flat)) < LONGEST).all():
                return found.reshape(-1, 4)  # as nearly all files are, and in a quarter of the time
        self._demand(field, values, _box, "four finite numbers")
        return np.array(values, np.float64).reshape(-1, 4)

    def lists(self, field: str, default: Sequence[Any] | None = None) -> list[list[Any]]:
        """Lists of anything. `default` stands where the field is absent."""
        values = self._values(field, None if default is None else list(default))
        self._demand(field, values, lambda v: type(v) is list, "a list")
        return values

    def unique(self, field: str, values: np.ndarray) -> None:
        """Raises: Wrong where one of `values` (what `ids` gave) occurs twice."""
        seen: set[Any] = set()
        listed = values.tolist()
        if len(set(listed)) == len(listed):
            return
        for at, value in enumerate(listed):
            if value in seen:
                raise self.fault(at, field, f"{shown(value)} occurs twice")
            seen.add(value)

    def _values(self, field: str, default: Any = None) -> list[Any]:
        if default is not None:
            return [record.get(field, default) for record in self.values]
        values = [record.get(field, _ABSENT) for record in self.values]
        if _ABSENT in values:
            at = values.index(_ABSENT)
            present = ", ".join(map(str, self.values[at])) or "nothing"
            raise Wrong(f"has no {field!r}; it has: {present}", path=self.path, place=self.place(at))
        return values

    def _integers(self, field: str, values: list[Any], said: str) -> np.ndarray:
        if set(map(type, values)) - {int}:
            self._demand(field, values, _whole, said)
            values = [int(v) for v in values]
        try:
            return np.array(values, np.int64)
        except OverflowError:
            at = next(i for i, v in enumerate(values) if not -LARGEST <= v <= LARGEST)
            raise self.fault(at, field, f"must be an integer below 2**63, not {shown(values[at])}") from None

    def _demand(self, field: str, values: list[Any], allowed: Callable[[Any], bool], said: str) -> None:
        for at, value in enumerate(values):
            if not allowed(value):
                raise self.fault(at, field, f"must be {said}, not {shown(value)}")

    def place(self, at: int) -> str:
        """What one object is called in an error: its kind, index and id."""
        record = self.values[at]
        own = record.get("id") if isinstance(record, dict) else None
        named = f" (id {shown(own)})" if type(own) in (int, str) else ""
        return f"{self.kind} {self.first + at}{named}"


def _finite(value: Any) -> bool:
    if type(value) is float:
        return math.isfinite(value)
    return type(value) is int and -LARGEST <= value <= LARGEST


def _box(value: Any) -> bool:
    return type(value) is list and len(value) == 4 and all(_finite(v) and abs(v) < LONGEST for v in value)


def _whole(value: Any) -> bool:
    return type(value) is int or (type(value) is float and value.is_integer() and abs(value) <= 2**53)


def _printable(text: str) -> bool:
    """Is it text that can be written down? A lone half of a surrogate pair cannot, nor can NUL in a file's name."""
    return "\0" not in text and (text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text))
