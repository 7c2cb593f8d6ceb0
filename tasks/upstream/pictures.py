"""Pictures of upstream training: one decoded crop for the student, and the same for the teacher at its own size."""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.classification.pictures import Pictures
from tasks.classification.preprocess import evaluation_view, flip, inception_box
from tasks.classification.preprocess import resize_bilinear as resize
from tasks.data.splits import Labelled
from tasks.upstream.randaugment import randaugment


class UpstreamPictures(Pictures):
    """Items as `(image uint8 [3, S, S], label)`, or `(image, {"label", "teacher": uint8 [3, T, T]})` with a teacher.

    Training: an Inception crop of 5 to 100 % of the area, mirrored every second time, then RandAugment. The teacher
    sees the same crop, resized from the full picture (function matching). Evaluation: `squeeze` resizes to a square
    of 8/7 the side before the central crop, else the shorter side.
    """

    def __init__(
        self, found: Labelled, side: int, teacher_side: int = 0, squeeze: bool = False,
        randaug: tuple[int, int] | None = None,
    ):  # fmt: skip
        super().__init__(found, side, "big_vision", "inception", squeeze)
        self.teacher_side, self.randaug = teacher_side, randaug

    def __getitem__(self, i: int) -> tuple[Tensor, int | Tensor | dict[str, int | Tensor]]:
        picture = self.picture(i)
        own, other = (self._evaluated(picture, side) if side else None for side in (self.side, self.teacher_side))
        return own, self._target(i, other)

    def sample(self, i: int, generator: torch.Generator) -> tuple[Tensor, int | Tensor | dict[str, int | Tensor]]:
        picture = self.picture(i)
        top, left, height, width = inception_box(*picture.shape[1:], generator)
        cut = flip(picture[:, top : top + height, left : left + width], generator)
        own, other = (resize(cut, side, side) if side else None for side in (self.side, self.teacher_side))
        if self.randaug:
            own = randaugment(own, *self.randaug, generator)
        return own, self._target(i, other)

    def _evaluated(self, picture: Tensor, side: int) -> Tensor:
        return evaluation_view(picture, side, "big_vision", self.squeeze)

    def _target(self, i: int, teacher: Tensor | None) -> int | Tensor | dict[str, int | Tensor]:
        return self.label(i) if teacher is None else {"label": self.label(i), "teacher": teacher}


class StoredPictures(UpstreamPictures):
    """As `UpstreamPictures` in evaluation; in training as stored, for augmentation of whole batches.

    Example: `StoredPictures(task.labelled("train"), 120).stored(0)[0].shape  # [3, 64, 64]`
    """

    def stored(self, i: int) -> tuple[Tensor, int | Tensor]:
        """`(uint8 [3, h, w], label)` before anything random."""
        return self.picture(i), self.label(i)

    def sample(self, i: int, generator: torch.Generator) -> tuple[Tensor, int | Tensor]:
        return self.stored(i)
