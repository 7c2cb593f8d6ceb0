"""The training split: mosaics with their queries, drawn anew for each (seed, epoch, index)."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from tasks.contract import TaskError, Widths
from tasks.data.decoding import decode
from tasks.detection.labels.annotations import as_lvis
from tasks.detection.labels.folders import DetectionSet, picture_bytes
from tasks.detection.labels.mosaics import Tile, at_most, augmented, mosaic, padded
from tasks.detection.labels.queries import NEGATIVES, QUERIES, add_negatives, build_queries, forbidden
from tasks.detection.labels.shares import SHARES, SIZES
from tasks.text.prompts import template_set
from tasks.text.towers import QUIRK, longest, tokenize


class TrainingData(Dataset):
    """`data.sample(i, generator)` -> image uint8 [3, side, side] and its targets; `data[i]` is seeded with i.

    Targets: `tokens` int64 [Q, 16] of the queries, `boxes` float32 [M, 4] centre form in the unit square, `labels`
    bool [M, Q]. Image i is the first tile; the others of a mosaic are drawn.

    Args:
        zero_shot: rare categories and their aliases are removed from boxes and negatives, so from random ones too.
        negatives: file of the data's folder with other negatives, {image id: [category id]}; "" for those listed.
        prompts: template set. mosaics: shares of 1x1, 2x2, 3x3. mask_quirk: queries are filled up to 99 with the
            official padding text, which the official code fails to mask in training.
        augment: False leaves pictures whole and unflipped, which no recipe does: for overfitting a handful on purpose.
    Raises: TaskError for an empty split or a missing file of negatives.

    Example: `image, targets = TrainingData(DetectionSet("lvis_coco80", root), 240).sample(0, generator)`
    """

    def __init__(
        self,
        found: DetectionSet,
        side: int,
        pad: float = 0.5,
        zero_shot: bool = True,
        negatives: str = "",
        prompts: str = "train",
        mosaics: Sequence[float] = SHARES,
        mask_quirk: bool = False,
        split: str = "train",
        augment: bool = True,
    ):
        self.found, self.side, self.pad, self.mask_quirk, self.augment = found, side, pad, mask_quirk, augment
        self.templates, self.mosaics = template_set(prompts), torch.tensor(mosaics, dtype=torch.float64)
        data = as_lvis(found.labels(split))
        if not data["images"]:
            raise TaskError(f"split {split!r} of {found.folder} has no images")
        self.images = sorted(data["images"], key=lambda i: i["id"])
        categories = sorted(data["categories"], key=lambda c: c["id"])
        self.names = [c["name"] for c in categories]
        place = {c["id"]: i for i, c in enumerate(categories)}
        hidden = forbidden(categories) if zero_shot else set()
        boxes, labels = defaultdict(list), defaultdict(list)
        for one in data["annotations"]:
            category = place[one["category_id"]]
            if category not in hidden:
                x, y, w, h = one["bbox"]
                boxes[one["image_id"]].append((x, y, x + w, y + h))
                labels[one["image_id"]].append(category)
        absent = self._absent(negatives)
        self.boxes = [torch.tensor(boxes[i["id"]], dtype=torch.float32).view(-1, 4) for i in self.images]
        self.labels = [torch.tensor(labels[i["id"]], dtype=torch.int64) for i in self.images]
        self.negatives = [
            frozenset(place[c] for c in absent.get(i["id"], i.get("neg_category_ids", ()))) - hidden
            for i in self.images
        ]
        everything = [c for part in (*self.labels, *self.negatives) for c in map(int, part)]
        self.seen = torch.bincount(torch.tensor(everything, dtype=torch.int64), minlength=len(categories)).double()

    def _absent(self, name: str) -> dict[int, list[int]]:
        if not name:
            return {}
        path = self.found.path(name)
        if not path.is_file():
            raise TaskError(f"no file of negatives {path}")
        return {int(image): listed for image, listed in json.loads(path.read_text()).items()}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        return self.sample(index, torch.Generator().manual_seed(index))

    def tile(self, index: int) -> Tile:
        """A picture as it lies on disk."""
        entry = self.images[index]
        picture = decode(picture_bytes(self.found.folder, entry), f"picture of image {entry['id']}")
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


def collate_targets(targets: Sequence[dict[str, Tensor]]) -> dict[str, Any]:
    """Padded to the batch's largest: `tokens` [B, Q, L] (zeros), `boxes` [B, M, 4], `labels` [B, M, Q], and `present`
    bool [B, M], which instances are real. `widths`: Q, M, L of each image. All are at least one wide."""
    fill = [(max(1, len(t["tokens"])), max(1, len(t["boxes"])), longest(t["tokens"])) for t in targets]
    widths, count = Widths(tuple(fill)), len(targets)
    queries, instances, length = widths.largest()
    out: dict[str, Any] = {
        "tokens": torch.zeros(count, queries, length, dtype=torch.int64),
        "boxes": torch.zeros(count, instances, 4),
        "labels": torch.zeros(count, instances, queries, dtype=torch.bool),
        "present": torch.zeros(count, instances, dtype=torch.bool),
    }
    for i, one in enumerate(targets):
        m, q = one["labels"].shape
        out["tokens"][i, :q], out["labels"][i, :m, :q] = one["tokens"][:, :length], one["labels"]
        out["boxes"][i, :m], out["present"][i, :m] = one["boxes"], True
    return {**out, "widths": widths}
