"""Pictures with classes: a folder a class, or a table; classes of a test split are those of train, matched by name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.data.errors import Missing, Wrong, nearest, shown
from tasks.data.pictures import SUFFIXES
from tasks.data.readers.files import PASSED_OVER, Files, check_spelling, passed_over, pictures_under
from tasks.data.readers.tables import IMAGES, LABELS, NAMES, Column, Table
from tasks.data.splits import Labelled


def class_names(folder: Path) -> list[str]:
    """Names of the class folders, sorted; those that start with a dot are none.

    Raises: Missing where there is no folder.
    """
    if not folder.is_dir():
        raise Missing("no such folder", path=folder)
    entries = (e for e in os.scandir(folder) if e.is_dir() and not e.name.startswith(".") and e.name not in PASSED_OVER)
    names = sorted(e.name for e in entries)
    for name in names:
        check_spelling(name, folder)
    return names


def _loose(folder: Path) -> str:
    """A note on pictures beside the class folders, which are of no class; "" for none."""
    names = [e.name for e in os.scandir(folder) if e.is_file() and not e.name.startswith(".")]
    count = sum(os.path.splitext(name)[1].lower() in SUFFIXES for name in names)
    lie = "picture lies" if count == 1 else "pictures lie"
    return f"{count:,} {lie} in no class folder: a class is a folder, {folder.name}/CLASS/" if count else ""


def read_class_folders(folder: Path, classes: Sequence[str] | None = None, partial: bool = False) -> Labelled:
    """One folder a class, as torchvision's ImageFolder, with every picture below it.

    Args:
        classes: the names of train, which say which folder is which label; None: this is train, and no class may be
            empty. An empty folder of a test split says that it has no picture of that class.
        partial: some of `classes` may have no folder.

    Raises: Missing for no folder, no picture or a class without folder. Wrong for a folder that is none of `classes`,
        or a class of train without picture.

    Example: `read_class_folders(Path("pets/train")).classes`
    """
    present = class_names(folder)
    index = {name: i for i, name in enumerate(classes if classes is not None else present)}
    if unknown := [name for name in present if name not in index]:
        near = nearest(unknown[0], index)
        raise Wrong(f"has the class folder {unknown[0]!r}, which the training classes do not", path=folder,
                    advice=f"nearest: {', '.join(near)}" if near else "")  # fmt: skip
    if not partial and (absent := [name for name in index if name not in present]):
        # a score over the other classes would be another number
        raise Missing(f"has no folder of class {absent[0]!r} ({len(absent)} of {len(index)} are missing)", path=folder)
    names: list[str] = []
    labels: list[int] = []
    others: list[str] = []
    for name in present:
        files = list(pictures_under(folder / name))
        own = [f"{name}/{file}" for file, picture in files if picture]
        others += [f"{name}/{file}" for file, picture in files if not picture]
        if classes is None and not own:
            said = passed_over([file for file, _ in files])
            raise Missing("has no pictures", path=folder / name, advice=said or "remove the folder if it is no class")
        names += own
        labels += [index[name]] * len(own)
    if not names:
        raise Missing("has no pictures in class folders", path=folder, advice=_loose(folder) or passed_over(others))
    note = "; ".join(part for part in (_loose(folder), passed_over(others)) if part)
    return Labelled(
        names, Files(folder, names), labels=np.array(labels, np.int64), classes=tuple(index),
        notes=(f"{folder}: {note}",) if note else (),
    )  # fmt: skip


def read_class_table(
    table: Table, classes: Sequence[str] | None = None, names: Sequence[str] | None = None, image: str = "",
    label: str = "",
) -> Labelled:  # fmt: skip
    """Pictures and labels out of columns. Labels are whole numbers from 0, or names of classes.

    Args:
        classes: the names of train; None: this is train. names: what this split's own numbers mean, where a file beside
            it says so; Hugging Face's features come first. image, label: columns; "": the first of the usual names.

    Raises: Wrong naming file, row and value of a label that is no class, or that train does not have.

    Example: `read_class_table(open_parquet(paths)).classes`
    """
    pictures = table.choose(IMAGES, image, "pictures", "image_column")
    column = table.choose(LABELS, label, "labels", "label_column")
    values = table.column(column)
    own = _feature_names(table, column) or (list(names) if names else None)
    if values and all(type(value) is str for value in values):
        labels, known = _by_text(table, column, values, classes)
    else:
        labels, known = _by_number(table, column, values, classes, own)
    if not values:
        raise Missing("has no rows", path=table.paths[0])
    present = table.schema.names
    called = next((name for name in NAMES if name in present and name not in (pictures, column)), None)
    listed = [str(name) for name in table.column(called)] if called else []
    if len(set(listed)) != len(values):  # a name that is not one picture's own is none
        listed = [str(i) for i in range(len(values))]
    return Labelled(listed, Column(table, pictures), labels=labels, classes=known)


def _feature_names(table: Table, column: str) -> list[str] | None:
    feature = table.features.get(column)
    names = feature.get("names") if isinstance(feature, dict) else None
    if isinstance(names, dict):  # an old form: {"0": "cat"}
        names = list(names.values())
    return [str(name) for name in names] if isinstance(names, list) and names else None


def _by_text(
    table: Table, column: str, values: list[str], classes: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    known = tuple(classes) if classes is not None else tuple(sorted(set(values)))
    index = {name: i for i, name in enumerate(known)}
    for i, value in enumerate(values):
        if value not in index:
            raise _no_class(table, column, i, value, known)
    return np.array([index[value] for value in values], np.int64), known


def _by_number(
    table: Table, column: str, values: list[Any], classes: Sequence[str] | None, own: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    for i, value in enumerate(values):
        whole = type(value) is int or (type(value) is float and value.is_integer())
        if not whole or value < 0 or value >= 2**31:
            path, row = table.place(i)
            said = "must be a whole number from 0 on, or the name of a class"
            raise Wrong(f"{said}, not {shown(value)}", path=path, place=f"row {row}", field=column)
    labels = np.array(values, np.int64)
    top = int(labels.max(initial=-1))
    if own is None:
        if classes is None:
            if len(labels) and labels.min() > 0:
                raise Wrong(f"has labels {labels.min()} to {top}: they must start at 0", path=table.paths[0],
                            field=column)  # fmt: skip
            return labels, tuple(map(str, range(top + 1)))
        own = classes  # numbers without names mean what train's numbers mean
    for i in np.flatnonzero(labels >= len(own))[:1]:
        raise _no_class(table, column, int(i), int(labels[i]), own)
    if classes is None:
        return labels, tuple(own)
    index = {name: i for i, name in enumerate(classes)}
    moved = np.array([index.get(name, -1) for name in own], np.int64)[labels]
    for i in np.flatnonzero(moved < 0)[:1]:
        raise _no_class(table, column, int(i), own[int(labels[i])], classes)
    return moved, tuple(classes)


def _no_class(table: Table, column: str, i: int, value: object, classes: Sequence[str]) -> Wrong:
    path, row = table.place(i)
    near = nearest(value, classes) if isinstance(value, str) else []
    advice = f"nearest: {', '.join(near)}" if near else ""
    return Wrong(f"{shown(value)} is none of the {len(classes)} classes of train", path=path, place=f"row {row}",
                 field=column, advice=advice)  # fmt: skip
