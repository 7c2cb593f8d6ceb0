"""The data set of labelled pictures: decoded once, then cut for training or evaluation."""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.classification.preprocess import evaluation_view, larger_side, training_view
from tasks.data.decoding import decode
from tasks.data.splits import Labelled

REMEMBERED = 256 << 20  # bytes of decoded pictures a data set keeps


class Pictures:
    """`pictures[i]` -> (uint8 [3, S, S], label), as evaluated; `pictures.sample(i, generator)` as trained on.

    `scaled`: large JPEGs are decoded smaller, to no less than what evaluation resizes to.
    """

    def __init__(
        self, found: Labelled, side: int, style: str, crop: str, squeeze: bool = False, scaled: bool = False
    ):  # fmt: skip
        self.found, self.side, self.style, self.crop, self.squeeze = found, side, style, crop, squeeze
        self.reduced = larger_side(side) if scaled else 0
        self._kept: dict[int, Tensor] = {}
        self._bytes = 0
        found.pictures.open()

    def __len__(self) -> int:
        return len(self.found)

    def picture(self, i: int) -> Tensor:
        """Decoded uint8 [3, h, w]; kept in memory as long as all is small."""
        if i in self._kept:
            return self._kept[i]
        image = decode(self.found.read(i), self.found.pictures.where(i), self.reduced)
        if self._bytes + image.numel() <= REMEMBERED:
            self._kept[i] = image
            self._bytes += image.numel()
        return image

    def label(self, i: int) -> int | Tensor:
        label = self.found.labels[i]
        return int(label) if label.ndim == 0 else torch.from_numpy(label)

    def __getitem__(self, i: int) -> tuple[Tensor, int | Tensor]:
        return evaluation_view(self.picture(i), self.side, self.style, self.squeeze), self.label(i)

    def sample(self, i: int, generator: torch.Generator) -> tuple[Tensor, int | Tensor]:
        return training_view(self.picture(i), self.side, self.style, self.crop, generator), self.label(i)
