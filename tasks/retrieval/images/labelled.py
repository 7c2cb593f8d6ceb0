"""Labelled pictures squeezed to squares, for retrieval among pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.data.splits import Labelled

if TYPE_CHECKING:
    from torch import Tensor


class LabelledDataset:
    """`dataset[i] -> (image uint8 [3, S, S], label)`."""

    def __init__(self, split: Labelled, size: int):
        self.split, self.size = split, size
        split.pictures.open()

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        from tasks.data.decoding import decode_square

        return decode_square(self.split.read(i), self.size, self.split.pictures.where(i)), int(self.split.labels[i])
