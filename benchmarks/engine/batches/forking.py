"""Processes that decode, started so that they share this one's memory."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader


def started(loader: DataLoader) -> Iterator[Any]:
    """`iter(loader)`. What lives now is kept out of the garbage collector of the processes that are forked here.

    A collection writes to every object that it looks at; of labels of a million boxes each process would then hold a
    copy of its own.

    Example: `for batch in started(loader): ...`
    """
    if not loader.num_workers:
        return iter(loader)
    gc.collect()
    gc.freeze()
    try:
        return iter(loader)
    finally:
        gc.unfreeze()
