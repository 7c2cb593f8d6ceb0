"""The training split: mosaics with their queries, drawn anew for each (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tasks.contract import TaskError, Widths
from tasks.data.boxes.columns import BoxLabels
from tasks.data.splits import Boxed
from tasks.detection.labels.evaluation_set import labelled_picture
from tasks.detection.labels.mosaics import INSTANCES, Tile, at_most, augmented, mosaic, padded
from tasks.detection.labels.queries import NEGATIVES, QUERIES, add_negatives, build_queries, forbidden
from tasks.detection.labels.shares import SHARES, SIZES
from tasks.text.locked import Asked
from tasks.text.prompts import template_set
from tasks.text.towers import CONTEXT, QUIRK, longest, tokenize


class TrainingData(Dataset):
    """`data.sample(i, generator)` -> image uint8 [3, side, side] and its targets; `data[i]` is seeded with i.

    Targets: `tokens` int64 [Q, 16] of the queries, `boxes` float32 [M, 4] centre form in the unit square, `labels`
    bool [M, Q]. Image i is the first tile; the others of a mosaic are drawn.

    Args:
        zero_shot: rare categories and their aliases are removed from boxes and negatives, so from random ones too.
        negatives: image id -> places of other negatives; those that the labels list where an image is not among them.
            COCO's labels are exhaustive: there every category that is absent is a negative.
        prompts: template set. mosaics: shares of 1x1, 2x2, 3x3. mask_quirk: queries are filled up to 99 with the
            official padding text, which the official code fails to mask in training.
        augment: False leaves pictures whole and unflipped, which no recipe does: for overfitting a handful on purpose.
    Crowds and boxes without area are no training boxes. Raises: TaskError for an empty split.

    Example: `image, targets = TrainingData(boxed_set("lvis_coco80", root).load("train"), 240).sample(0, generator)`
    """

    def __init__(
        self,
        boxed: Boxed,
        side: int,
        pad: float = 0.5,
        zero_shot: bool = True,
        negatives: Mapping[Any, Sequence[int]] | None = None,
        prompts: str = "train",
        mosaics: Sequence[float] = SHARES,
        mask_quirk: bool = False,
        augment: bool = True,
    ):
        self.boxed, self.side, self.pad, self.mask_quirk, self.augment = boxed, side, pad, mask_quirk, augment
        self.templates, self.mosaics = template_set(prompts), torch.tensor(mosaics, dtype=torch.float64)
        own, count = boxed.labels, len(boxed)
        if not count:
            raise TaskError("the training split has no images")
        self.names = list(own.names)
        hidden = forbidden(own.categories) if zero_shot else set()
        shown = ~np.isin(own.category, list(hidden))
        kept = np.flatnonzero(~own.crowd & (own.box[:, 2:] > 0).all(1) & shown)
        order = kept[np.argsort(own.image[kept], kind="stable")]
        ends = np.searchsorted(own.image[order], np.arange(1, count))
        corners = np.concatenate([own.box[:, :2], own.box[:, :2] + own.box[:, 2:]], 1).astype(np.float32)
        self.boxes = [torch.from_numpy(part) for part in np.split(corners[order], ends)]
        self.labels = [torch.from_numpy(part) for part in np.split(own.category[order], ends)]
        given = negatives or {}
        self.negatives = [
            frozenset(given.get(image, listed)) - hidden
            for image, listed in zip(own.image_ids.tolist(), _absent(own), strict=True)
        ]
        everything = [c for part in (*self.labels, *self.negatives) for c in map(int, part)]
        self.seen = torch.bincount(torch.tensor(everything, dtype=torch.int64), minlength=len(self.names)).double()

    def __len__(self) -> int:
        return len(self.boxed)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        return self.sample(index, torch.Generator().manual_seed(index))

    def tile(self, index: int) -> Tile:
        """A picture as it lies on disk."""
        picture = labelled_picture(self.boxed, index)
        return Tile(picture, self.boxes[index], self.labels[index], self.negatives[index])

    def sample(self, index: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """A mosaic and its targets, a pure function of both arguments."""
        size = SIZES[int(torch.multinomial(self.mosaics, 1, generator=generator))]
        others = torch.randint(len(self), (size * size - 1,), generator=generator).tolist()
        side = self.side // size
        shown = [self.tile(i) for i in (index, *others)]
        if self.augment:
            tiles = [augmented(t, side, self.pad, generator) for t in shown]
        else:
            tiles = [padded(t, side, self.pad) for t in shown]
        whole = at_most(mosaic([at_most(t, generator) for t in tiles]), generator)
        positives = whole.categories.tolist()
        negatives = add_negatives(positives, sorted(whole.negatives), self.seen, generator, NEGATIVES)
        asked = build_queries(whole.boxes, positives, negatives, self.names, self.templates, generator)
        tokens = tokenize(asked.texts)
        if self.mask_quirk:
            tokens = torch.cat([tokens, QUIRK.expand(QUERIES - len(tokens), -1)])
        low, high = asked.boxes[:, :2], asked.boxes[:, 2:]
        labels = torch.nn.functional.pad(asked.labels, (0, len(tokens) - asked.labels.shape[1]))
        return whole.image, {"tokens": tokens, "boxes": torch.cat([(low + high) / 2, high - low], 1), "labels": labels}


def _absent(labels: BoxLabels) -> list[list[int]]:
    """Places of the categories that are known to be absent from each image."""
    count = len(labels.image_ids)
    if labels.absent is not None:
        owner, category = labels.absent
        order = np.argsort(owner, kind="stable")
        parts = np.split(category[order], np.searchsorted(owner[order], np.arange(1, count)))
        return [part.tolist() for part in parts]
    present: list[set[int]] = [set() for _ in range(count)]  # in crowds too
    for image, category in zip(labels.image.tolist(), labels.category.tolist(), strict=True):
        present[image].add(category)
    every = range(len(labels.categories))
    return [[c for c in every if c not in own] for own in present]


def collate_targets(targets: Sequence[dict[str, Tensor]], one_width: bool = False) -> dict[str, Any]:
    """Padded to the batch's largest: `tokens` [B, Q, L] (zeros), `boxes` [B, M, 4], `labels` [B, M, Q], and `present`
    bool [B, M], which instances are real. `widths`: Q, M, L of each image. All are at least one wide. `asked`: the
    tokens once more, for a text tower that is not trained.

    With `one_width` they are as wide as any can be, and without `widths`: a compiler then sees one shape.
    """
    fill = [(max(1, len(t["tokens"])), max(1, len(t["boxes"])), longest(t["tokens"])) for t in targets]
    widths, count = Widths(tuple(fill)), len(targets)
    queries, instances, length = (QUERIES, INSTANCES, CONTEXT) if one_width else widths.largest()
    out: dict[str, Any] = {
        "tokens": torch.zeros(count, queries, length, dtype=torch.int64),
        "boxes": torch.zeros(count, instances, 4),
        "labels": torch.zeros(count, instances, queries, dtype=torch.bool),
        "present": torch.zeros(count, instances, dtype=torch.bool),
        "asked": Asked.of([t["tokens"] for t in targets]),
    }
    for i, one in enumerate(targets):
        m, q = one["labels"].shape
        out["tokens"][i, :q], out["labels"][i, :m, :q] = one["tokens"][:, :length], one["labels"]
        out["boxes"][i, :m], out["present"][i, :m] = one["boxes"], True
    return out if one_width else {**out, "widths": widths}
