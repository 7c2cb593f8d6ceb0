"""What a training image asks for: its own categories, those known to be absent, random others; prompts; merged boxes.

Federated labels need no mask: a category that is neither positive nor negative is no query, so it gets no gradient
(OWL-ViT, `preprocessing/label_ops.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tasks.detection.boxes import overlaps
from tasks.protocols import protocol
from tasks.text.prompts import canonical, prompted

PROTOCOL = protocol("detection")
NEGATIVES = PROTOCOL.value("negatives")  # random ones fill up to so many
QUERIES = PROTOCOL.value("queries")  # the official hundred holds an empty one in front
MERGED_AT = PROTOCOL.value("merged_at")  # intersection over union


@dataclass(frozen=True)
class Queries:
    """Texts, boxes [M, 4] (corners) and which texts are true of each, bool [M, Q]."""

    texts: tuple[str, ...]
    boxes: Tensor
    labels: Tensor


def _bare(name: str) -> str:
    return canonical(name.removeprefix("#")).replace("-", "").replace(" ", "")


def forbidden(categories: Sequence[Mapping[str, Any]]) -> set[int]:
    """Places of the categories that zero-shot training must not see: rare ones, and what else goes by their names.

    Names and LVIS synonyms are compared without case, spaces and dashes, in singular and plural.

    Example: `forbidden([{"name": "tux", "synonyms": ["tuxedo"], "frequency": "r"}, {"name": "Tuxedos"}])` is {0, 1}.
    """
    rare = [c for c in categories if c.get("frequency") == "r"]
    names = {_bare(n) for c in rare for n in (c["name"], *c.get("synonyms", ()))}
    aliases = names | {f"{n}s" for n in names} | {f"{n}es" for n in names} | {n.removesuffix("s") for n in names}
    return {i for i, c in enumerate(categories) if c.get("frequency") == "r" or _bare(c["name"]) in aliases}


def add_negatives(
    positives: Collection[int], given: Sequence[int], seen: Tensor, generator: torch.Generator, total: int = NEGATIVES
) -> list[int]:
    """The given negatives, then random categories, none of them positive, until there are `total`.

    Args: seen: float [K], how often each category occurs in the labels (the official code draws from a queue of labels
        just seen). As many as twice `total` are drawn, so there may be fewer where few categories are common.
    """
    present, out = set(positives), list(dict.fromkeys(given))
    if float(seen.sum()) > 0:
        drawn = torch.multinomial(seen, 2 * total, replacement=True, generator=generator).tolist()
        more = [c for c in dict.fromkeys(drawn) if c not in present and c not in set(out)]
        out += more[: max(0, total - len(out))]
    return [c for c in out if c not in present]


def merge_overlapping(
    boxes: Tensor, labels: Tensor, generator: torch.Generator, threshold: float = MERGED_AT
) -> tuple[Tensor, Tensor]:
    """One instance for boxes that nearly coincide: the union of their labels, the box of one of them at random.

    Args: boxes [M, 4] corners; labels bool [M, Q]. The nearest pair is merged first, until none overlaps by
        `threshold`.
    """
    boxes, labels = boxes.clone(), labels.clone()
    while len(boxes) > 1:
        iou = overlaps(boxes[:, None], boxes)[0].fill_diagonal_(0)
        best = int(iou.argmax())
        first, second = divmod(best, len(boxes))
        if float(iou[first, second]) < threshold:
            break
        chosen = (first, second)[int(torch.randint(2, (), generator=generator))]
        boxes[first], labels[first] = boxes[chosen].clone(), labels[first] | labels[second]
        kept = torch.arange(len(boxes)) != second
        boxes, labels = boxes[kept], labels[kept]
    return boxes, labels


def build_queries(
    boxes: Tensor,
    categories: Sequence[int],
    negatives: Sequence[int],
    names: Sequence[str],
    templates: tuple[str, ...],
    generator: torch.Generator,
    limit: int = QUERIES,
) -> Queries:
    """Texts of an image: positives in the order of their instances, then negatives, at most `limit`.

    One random template a category, shared by all its instances in the image. Categories that read alike are one text.
    An instance none of whose texts is within the limit is left out.

    Args: boxes [M, 4] corners; categories: place in `names` of each instance; negatives: no positive among them.

    Example: `build_queries(boxes, [4, 4, 7], [0, 2], names, template_set("train"), generator).texts`
    """
    order = list(dict.fromkeys([*categories, *negatives]))
    drawn = torch.randint(len(templates), (len(order),), generator=generator).tolist()
    text = {c: prompted(names[c], (templates[t],))[0] for c, t in zip(order, drawn, strict=True)}
    texts = tuple(dict.fromkeys(text[c] for c in order))[:limit]
    column = {t: i for i, t in enumerate(texts)}
    labels = torch.zeros(len(boxes), len(texts), dtype=torch.bool)
    for row, category in enumerate(categories):
        if text[category] in column:
            labels[row, column[text[category]]] = True
    boxes, labels = merge_overlapping(boxes, labels, generator)
    kept = labels.any(1)
    return Queries(texts, boxes[kept], labels[kept])
