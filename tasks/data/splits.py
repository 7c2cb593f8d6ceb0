"""One split of a data set: names, encoded pictures, and what its labels are; its identity is its content."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tasks.data.boxes.columns import BoxLabels
from tasks.data.checks.fingerprints import fingerprint
from tasks.data.encoded import Pictures
from tasks.data.readers.label_maps import Labels


@dataclass(frozen=True)
class Split:
    """`pictures.read(i)` is called `names[i]`. Subclasses add labels, and list them in `labels_hashed`.

    `notes`: what was passed over or dropped in reading, for a person to read.
    """

    names: Sequence[str]
    pictures: Pictures
    notes: tuple[str, ...] = field(default=(), kw_only=True)

    def __len__(self) -> int:
        return len(self.names)

    def hashed(self) -> Iterable[Any]:
        """What beside names and pictures makes the split what it is: arrays, texts, lists."""
        return ()

    def more_pictures(self) -> Sequence[Pictures]:
        """Label maps and other pictures that belong to the split."""
        return ()

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of names, labels and bytes; it says so where pictures of more than 2 GiB were sampled."""
        return fingerprint((list(self.names), *self.hashed()), (self.pictures, *self.more_pictures()))


@dataclass(frozen=True)
class Labelled(Split):
    """Pictures with classes. `labels` int64 [N], or [N, L] of right answers, -1 where there are fewer.

    `classes`: names by label. `allowed`: labels that a prediction may take, None for all.
    """

    labels: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    classes: tuple[str, ...] = ()
    allowed: tuple[int, ...] | None = None

    def hashed(self) -> Iterable[Any]:
        return (self.labels, list(self.classes), list(self.allowed or ()))

    def subset(self, index: np.ndarray) -> Labelled:
        """The pictures at `index`, in that order."""
        return Labelled(
            [self.names[i] for i in index], Chosen(self.pictures, index), self.labels[index], self.classes,
            self.allowed, notes=self.notes,
        )  # fmt: skip

    def read(self, i: int) -> bytes | np.ndarray:
        """Picture i, encoded or as pixels."""
        return self.pictures.read(i)


@dataclass(frozen=True)
class Captioned(Split):
    """Pictures with sentences: image i has `captions[i]`, one or more."""

    captions: Sequence[Sequence[str]] = ()

    def hashed(self) -> Iterable[Any]:
        return ([list(own) for own in self.captions],)

    def subset(self, index: Sequence[int]) -> Captioned:
        """The pictures at `index`, in that order."""
        chosen = np.asarray(index, np.int64)
        return Captioned(
            [self.names[i] for i in index], Chosen(self.pictures, chosen), [self.captions[i] for i in index],
            notes=self.notes,
        )  # fmt: skip

    def read(self, i: int) -> bytes | np.ndarray:
        """Picture i, encoded or as pixels."""
        return self.pictures.read(i)


@dataclass(frozen=True)
class Masked(Split):
    """Pictures with label maps: map i belongs to picture i, its values mean what `meaning` says."""

    masks: Pictures
    meaning: Labels

    def hashed(self) -> Iterable[Any]:
        meaning = self.meaning
        palette = [[*colour, label] for colour, label in sorted(meaning.palette.items())]
        return (list(meaning.names), [meaning.ignore, meaning.reduce_zero, meaning.others_ignored], palette,
                sorted(meaning.values.items()))  # fmt: skip

    def more_pictures(self) -> Sequence[Pictures]:
        return (self.masks,)

    def subset(self, index: np.ndarray) -> Masked:
        """The pairs at `index`, in that order."""
        return Masked(
            [self.names[i] for i in index], Chosen(self.pictures, index), masks=Chosen(self.masks, index),
            meaning=self.meaning, notes=self.notes,
        )  # fmt: skip


@dataclass(frozen=True)
class Boxed(Split):
    """Pictures with boxes: image i of `labels` is picture i."""

    labels: BoxLabels

    def hashed(self) -> Iterable[Any]:
        own = self.labels
        listed = [part for pairs in (own.absent, own.partial) for part in (pairs or ())]
        return (own.protocol.value, own.image_ids, own.sizes, own.category_ids, [dict(c) for c in own.categories],
                own.image, own.category, own.box, own.area, own.crowd, own.ignore, *listed)  # fmt: skip


@dataclass(frozen=True)
class Sought(Split):
    """Queries, of each its box `bbx` (x1, y1, x2, y2) and which rows of the gallery are right; or a gallery."""

    answers: Sequence[Mapping[str, np.ndarray]]

    def hashed(self) -> Iterable[Any]:
        return (value for answer in self.answers for _, value in sorted(answer.items()))


@dataclass(frozen=True)
class Chosen:
    """Some pictures of others, in the order of `index`."""

    whole: Pictures
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    def read(self, i: int) -> bytes | np.ndarray:
        return self.whole.read(int(self.index[i]))

    def where(self, i: int) -> str:
        return self.whole.where(int(self.index[i]))

    def files(self) -> Sequence[str]:
        files = self.whole.files()
        return [files[i] for i in self.index] if self.single else files

    @property
    def single(self) -> bool:
        return self.whole.single

    def open(self) -> None:
        self.whole.open()
