"""`meta.json`: what the values of an own set's masks mean."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tasks.data.documents import read_json
from tasks.data.errors import Wrong, nearest, shown
from tasks.data.readers.label_maps import IGNORE, Labels

# others are passed over, but for those that are nearly one of these
FIELDS = ("class_names", "ignore_label", "reduce_zero_label", "values", "palette")


def read_meaning(path: Path) -> Labels:
    """`class_names`, `ignore_label`, `reduce_zero_label`; where masks hold other values than the places of the classes,
    `values` (stored value -> class name) or `palette` (class name -> [r, g, b]).

    Raises: Wrong naming the field that is not as it must be.

    Example: `{"class_names": ["no", "yes"], "values": {"0": "no", "255": "yes"}}`
    """
    meta = read_json(path)
    for key in meta if isinstance(meta, dict) else ():
        if key not in FIELDS and (near := get_close_matches(key, FIELDS, 1, 0.8)) and near[0] not in meta:
            raise Wrong("is no field of it", path=path, field=shown(key), advice=f"nearest: {near[0]}")
    names = meta.get("class_names") if isinstance(meta, dict) else None
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise Wrong("must be a list of names", path=path, field="class_names")
    if len(set(names)) < len(names):
        raise Wrong("has a name twice", path=path, field="class_names")
    reduce, ignore = meta.get("reduce_zero_label", False), meta.get("ignore_label", IGNORE)
    if not isinstance(reduce, bool):
        raise Wrong(f"must be true or false, not {shown(reduce)}", path=path, field="reduce_zero_label")
    if type(ignore) is not int or not 0 <= ignore <= 255:
        raise Wrong(f"must be a whole number from 0 to 255, not {shown(ignore)}", path=path, field="ignore_label")
    if reduce:  # a label that is dropped by the reduction is not looked for afterwards
        return Labels(tuple(names), IGNORE, True)
    values = _named_values(meta.get("values"), names, path)
    if values:
        ignore = ignore if ignore not in values else next((v for v in range(255, -1, -1) if v not in values), IGNORE)
    return Labels(tuple(names), ignore, False, values, _palette(meta.get("palette"), names, path))


def _named_values(values: Any, names: Sequence[str], path: Path) -> dict[int, int]:
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise Wrong("must be an object of values and class names", path=path, field="values")
    found = {}
    for value, name in values.items():
        if not value.isdecimal() or int(value) > 255:
            raise Wrong(f"{shown(value)} is no value of an 8-bit mask", path=path, field="values")
        if name is not None and name not in names:
            near = nearest(name, names)
            advice = f"nearest: {', '.join(near)}; null is ignored" if near else "null is ignored"
            raise Wrong(f"{shown(name)} is not among class_names", path=path, field="values", advice=advice)
        found[int(value)] = IGNORE if name is None else list(names).index(name)
    return found


def _palette(palette: Any, names: Sequence[str], path: Path) -> dict[tuple[int, int, int], int]:
    if palette is None:
        return {}
    pairs = palette.items() if isinstance(palette, dict) else (
        zip(names, palette, strict=False) if isinstance(palette, list) and len(palette) == len(names) else None
    )  # fmt: skip
    if pairs is None:
        raise Wrong(f"must be {len(names)} colours, one a class", path=path, field="palette")
    found: dict[tuple[int, int, int], int] = {}
    for name, colour in pairs:
        right = isinstance(colour, list) and len(colour) == 3 and all(type(v) is int and 0 <= v <= 255 for v in colour)
        if not right:
            raise Wrong(f"must be [r, g, b] of 0 to 255, not {shown(colour)}", path=path, field=f"palette.{name}")
        if name != "ignored" and name not in names:
            raise Wrong(f"{shown(name)} is not among class_names (nor 'ignored')", path=path, field="palette")
        if tuple(colour) in found:
            raise Wrong(f"has the colour {colour} twice", path=path, field="palette")
        found[colour[0], colour[1], colour[2]] = IGNORE if name == "ignored" else list(names).index(name)
    return found
