"""Labels in the order of an explicit list of classes: a head and a set agree by that alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from tasks.data.errors import Wrong
from tasks.data.readers.files import read_text
from tasks.data.splits import Labelled


def reordered(found: Labelled, path: Path) -> Labelled:
    """The split with its classes in the order of a file, one name a line; classes without pictures keep their place.

    Raises: Wrong for a name that occurs twice, and for a class of the set that the file lacks.

    Example: `reordered(split, Path("imagenet21k_wordnet_ids.txt")).classes[0] == "n00004475"`
    """
    names = read_text(path).split()
    place = {name: i for i, name in enumerate(names)}
    if len(place) != len(names):
        twice = next(name for i, name in enumerate(names) if place[name] != i)
        raise Wrong("is in the list twice", path=path, field=repr(twice))
    lacking = [name for name in found.classes if name not in place]
    if lacking:
        raise Wrong(
            f"lacks {len(lacking)} of the {len(found.classes)} classes of the set, such as {lacking[0]!r}", path=path
        )
    moved = np.array([place[name] for name in found.classes], np.int64)
    return dataclasses.replace(found, labels=np.where(found.labels >= 0, moved[found.labels], -1), classes=tuple(names))
