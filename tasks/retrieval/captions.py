"""The data set of captioned pictures: squeezed to squares, captions tokenized in training."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tasks.data.splits import Captioned

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class CaptionDataset:
    """`dataset[i] -> (image uint8 [3, S, S], target)`.

    In training the target is int64 [context], the tokens of one caption: the first in `dataset[i]`, a random one in
    `dataset.sample(i, generator)`; one caption an image, so that no batch holds two right captions of a picture. In
    evaluation it is i.
    """

    def __init__(
        self, captions: Captioned, size: int, tokenize: Callable[[list[str]], Tensor] | None = None,
        flip: bool = False, randaug: tuple[int, int] | None = None,
    ):  # fmt: skip
        self.split, self.size, self.tokenize, self.flip, self.randaug = captions, size, tokenize, flip, randaug
        captions.pictures.open()

    def __len__(self) -> int:
        return len(self.split)

    def image(self, i: int) -> Tensor:
        from tasks.data.decoding import decode_square

        return decode_square(self.split.read(i), self.size, self.split.pictures.where(i))

    def __getitem__(self, i: int) -> tuple[Tensor, Any]:
        return self.image(i), i if self.tokenize is None else self.tokenize([self.split.captions[i][0]])[0]

    def sample(self, i: int, generator: torch.Generator) -> tuple[Tensor, Any]:
        """A picture, mirrored every second time and changed by RandAugment where those are set, and a caption."""
        target, image = self.target(i, generator), self.image(i)
        if self.flip or self.randaug:
            from tasks.classification.preprocess import flip
            from tasks.upstream.randaugment import randaugment

            image = flip(image, generator) if self.flip else image
            image = randaugment(image, *self.randaug, generator) if self.randaug else image
        return image, target

    def target(self, i: int, generator: torch.Generator) -> Any:
        """The target of `sample` without its picture."""
        if self.tokenize is None:
            return i
        import torch

        captions = self.split.captions[i]
        chosen = int(torch.randint(len(captions), (), generator=generator))
        return self.tokenize([captions[chosen]])[0]
