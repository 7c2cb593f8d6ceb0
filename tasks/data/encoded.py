"""Encoded pictures of a split, wherever they lie: files, members of archives, rows of tables, pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Pictures(Protocol):
    """Encoded pictures of a split, wherever they lie. Implementations pickle, so that processes can be spawned."""

    def __len__(self) -> int: ...

    def read(self, i: int) -> bytes | np.ndarray:
        """Encoded bytes, or uint8 [h, w, 3] of sets that store pixels.

        Raises: DataError naming the picture that is missing or cannot be read.
        """
        ...

    def where(self, i: int) -> str:
        """What picture i is called in an error: its path, or its file and place there."""
        ...

    def files(self) -> Sequence[str]:
        """The files that hold them: one for each picture, in order, where they are `single`, else the containers."""
        ...

    @property
    def single(self) -> bool:
        """Is each picture a file of its own?"""
        ...

    def open(self) -> None:
        """Load what processes that are forked afterwards shall share."""
        ...
