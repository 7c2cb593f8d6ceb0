"""Which pictures belong together: successive frames of one drive are no independent samples."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np


def drives_of(names: Sequence[str], pattern: str, block: int = 0) -> np.ndarray:
    """The number of each picture's drive, int64 [N]; with `block`, each so many successive frames of a drive are one.

    Args:
        names: of pictures, with folders or without.
        pattern: matches the beginning of a name; what it matches is the drive. A name that it does not match is alone.

    Example: `drives_of(["a_1", "a_2", "b_1"], r"[a-z]+_").tolist()` is `[0, 0, 1]`
    """
    form, found = re.compile(pattern), []
    for name in names:
        own = name.rpartition("/")[2]
        match = form.match(own)
        found.append(match.group(0) if match else own)
    drive = np.unique(np.array(found), return_inverse=True)[1].astype(np.int64)
    if not block:
        return drive
    order = np.lexsort((np.array([n.rpartition("/")[2] for n in names]), drive))
    starts = np.flatnonzero(np.diff(drive[order], prepend=-1))
    place = np.arange(len(order)) - np.repeat(starts, np.diff([*starts, len(order)]))
    within = np.empty(len(order), np.int64)
    within[order] = place // block
    return np.unique(np.stack([drive, within], 1), axis=0, return_inverse=True)[1].astype(np.int64).reshape(-1)
