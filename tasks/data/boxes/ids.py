"""Ids of images, categories and annotations, integers or strings, and their places among the known ones."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np

from tasks.data.errors import DataError, shown
from tasks.data.records import Records

Fault = Callable[[int, str], DataError]


def sorted_ids(records: Records) -> tuple[np.ndarray, np.ndarray]:
    """The field `id` of the records in order [N], int64 or objects (strings), and the place int64 [N] that each had.

    Raises: Wrong for an id that occurs twice, and for what `Records.ids` refuses.
    """
    ids = records.ids("id")
    records.unique("id", ids)
    order = np.argsort(ids, kind="stable")
    return ids[order], order


def positions(ids: np.ndarray, wanted: np.ndarray, what: str, fault: Fault) -> np.ndarray:
    """int64 [N], index of each wanted id among the sorted `ids`.

    Args: what: images or categories. fault: the error for the i-th wanted id, given a reason.
    Raises: what `fault` makes, for the first unknown id, with the nearest known ones.

    Example: `positions(ids, boxes.ids("image_id"), "images", lambda i, why: boxes.fault(i, "image_id", why))`
    """
    if ids.dtype == wanted.dtype == np.int64:
        index = np.searchsorted(ids, wanted).clip(max=len(ids) - 1)
        unknown = ids[index] != wanted
    else:
        table = {one: i for i, one in enumerate(ids.tolist())}
        index = np.array([table.get(one, -1) for one in wanted.tolist()], np.int64)
        unknown = index < 0
    if unknown.any():
        first = int(np.argmax(unknown))
        raise fault(first, _stranger(wanted[first : first + 1].tolist()[0], ids.tolist(), what))
    return index


def _stranger(bad: Any, ids: list[Any], what: str) -> str:
    reason = f"{shown(bad)} is not among the {what} of the labels"
    if type(bad) is not type(ids[0]):
        kind = "texts" if isinstance(ids[0], str) else "numbers"
        return f"{reason}, whose ids are {kind}, such as {shown(ids[0])}"
    if isinstance(bad, str):
        near = difflib.get_close_matches(bad, ids, 3, 0.0)
    else:
        near = sorted(sorted(ids, key=lambda one: abs(one - bad))[:3])
    return f"{reason}; nearest: {', '.join(map(shown, near))}"


def listed_ids(records: Records, field: str) -> tuple[np.ndarray, np.ndarray]:
    """The ids of a field that holds a list of them, one record after the other: the record of each int64 [M], the ids.

    Raises: Wrong naming the record that lacks the field or lists something else.
    """
    lists = records.lists(field)
    owner = np.repeat(np.arange(len(lists)), [len(one) for one in lists])
    flat: list[Any] = list(chain.from_iterable(lists))
    kind: Any = str if flat and type(flat[0]) is str else int
    for place, value in enumerate(flat):
        if type(value) is not kind or (kind is int and abs(value) >= 2**63):
            raise records.fault(int(owner[place]), field, f"must be a list of ids, it holds {shown(value)}")
    return owner, np.array(flat, np.int64 if kind is int else object)
