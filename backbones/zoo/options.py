"""Options of backbones by name, and the values that they take; told without torch, before anything is built."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from backbones.grids import FILTERS, METHODS, as_pair

FLEXIBLE = ("image_size", "native_grid", "resize", "filter", "position_filter", "fixed")  # of `FlexiBackbone`
NPZ = (*FLEXIBLE, "drop_path", "num_classes", "strict")
CHECKPOINT = (*NPZ, "prefix", "heads", "act_layer", "normalisation")
TIMM = (*NPZ, "pretrained", "path", "prefix")

CHOICES = {"resize": METHODS, "filter": FILTERS, "position_filter": FILTERS}
SWITCHES = ("pretrained", "fixed", "strict")
SIZES = ("image_size", "native_grid", "patch", "positions")
TEXTS = ("path", "checksum", "prefix", "act_layer")
COUNTS = {"num_classes": 0, "heads": 1}  # and the least of each


def names_of(function: Callable[..., Any], more: Iterable[str] = ()) -> tuple[str, ...] | None:
    """Options that a function can be called with. None: any, or nobody knows.

    Args: more: what its own `**options` stand for.

    Example: `names_of(lambda width, depth=2: None)` is `("width", "depth")`
    """
    try:
        known = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # written in C
        return None
    if any(p.kind is p.VAR_KEYWORD for p in known) and not more:
        return None
    bound = set(function.keywords) if isinstance(function, functools.partial) else set()
    own = [p.name for p in known if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in bound]
    return tuple(dict.fromkeys([*own, *more]))


def check_names(what: str, options: Iterable[str], known: Iterable[str] | None) -> None:
    """Raises: ValueError for the first option that is not among `known`, with the nearest that are."""
    if known is None:
        return
    names = list(known)
    for name in options:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, 3, 0.4)
            told = f"nearest: {', '.join(near)}" if near else f"it has: {', '.join(sorted(names)) or 'none'}"
            raise ValueError(f"backbone {what!r} has no option {name!r}; {told}")


def check_values(options: Mapping[str, Any]) -> None:
    """Of options that the project's own backbones share: is each of the kind that it is read as?

    A text is no switch: `pretrained: no` is the text "no" in YAML 1.2, and a text is true.

    Raises: ValueError naming the first value that is not, and what it must be.

    Example: `check_values({"drop_path": 0.1, "fixed": True})`
    """
    for name, value in options.items():
        if wanted := _wanted(name, value):
            raise ValueError(f"backbone option {name} must be {wanted}, not {value!r}")


def _wanted(name: str, value: Any) -> str:
    """What the value must be; empty where it is, or where nothing is known of the option."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if name in SWITCHES:
        return "" if isinstance(value, bool) else "true or false"
    if name in CHOICES:
        near = difflib.get_close_matches(value, CHOICES[name], 1, 0.4) if isinstance(value, str) else []
        told = " or ".join(near) if near else f"one of {', '.join(CHOICES[name])}"
        return "" if value in CHOICES[name] else told
    if name == "drop_path":
        number = whole or isinstance(value, float)
        return "" if number and math.isfinite(value) and 0 <= value < 1 else "a number from 0 to below 1"
    if value is None:
        return ""
    if name in TEXTS:
        return "" if isinstance(value, str | os.PathLike) else "a text"
    if name in COUNTS:
        return "" if whole and value >= COUNTS[name] else f"a whole number from {COUNTS[name]}"
    if name in SIZES:
        return "" if _is_size(value) else "a whole number from 1, or [height, width]"
    return ""


def _is_size(value: Any) -> bool:
    try:
        as_pair(value)
    except (ValueError, TypeError):
        return False
    return not isinstance(value, bool)
