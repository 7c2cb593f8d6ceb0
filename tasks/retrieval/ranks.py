"""Ranks of image-text retrieval by counting better-scored items, tile by tile: nothing is sorted, memory stays flat.

Definitions, the same in all tables of this project:

* every caption of an image is right for it, a caption has exactly one right image;
* rank of a query: 1 + the number of wrong items scored at least as high as its best right item. **Ties are
  pessimistic**: a wrong item that ties with the right one counts as better, so that a model whose embeddings collapsed
  to one point gets R@K = 0, not 1;
* equal caption texts of different images stay separate items, as in the Karpathy protocol (VSE++, CLIP_benchmark):
  the twin of another image is a wrong item, and its exact tie costs one rank;
* R@K: share of queries with rank <= K. Without ties this is `recall_at_k(...) > 0` of CLIP_benchmark;
* mean and median rank count from 1; the median of an even number of queries is the mean of the middle two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.contract import TaskError

CUTOFFS = (1, 5, 10)


@dataclass(frozen=True)
class Ranks:
    """Rank of every query, from 1. `i2t` int64 [images], `t2i` int64 [captions], in the order of the input."""

    i2t: Tensor
    t2i: Tensor

    def metrics(self) -> dict[str, float]:
        """`{i2t,t2i}_R@{1,5,10}` as fractions 0-1, `{i2t,t2i}_mean_rank` and `_median_rank` from 1."""
        return {
            f"{direction}_{name}": value
            for direction, ranks in (("i2t", self.i2t), ("t2i", self.t2i))
            for name, value in summary(ranks).items()
        }


def summary(ranks: Tensor) -> dict[str, float]:
    """R@1/5/10 as fractions, mean and median of ranks that count from 1."""
    values = ranks.double()
    recalls = {f"R@{k}": float((ranks <= k).double().mean()) for k in CUTOFFS}
    return recalls | {"mean_rank": float(values.mean()), "median_rank": median(ranks)}


def median(values: Tensor) -> float:
    """Median; the mean of the middle two for an even count (torch's own takes the lower, its quantile stops at 16M)."""
    ordered = values.sort().values
    return float(ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def chance(images: int, captions: int) -> dict[str, float]:
    """Expected R@K of random scores, with the same number of captions for every image.

    Example: `chance(1000, 5000)["t2i_R@1"]` is 0.001 and `["i2t_R@1"]` 0.001 (five right of 5,000).
    """
    each = captions // images
    found = {}
    for k in CUTOFFS:
        missed = 1.0
        for i in range(min(k, captions)):  # no right caption among the first k, drawn without replacement
            missed *= max(0, captions - each - i) / (captions - i)
        found |= {f"i2t_R@{k}": 1 - missed, f"t2i_R@{k}": min(1.0, k / images)}
    return found


def check_embeddings(image: Tensor, text: Tensor) -> None:
    """Raises: TaskError for empty sets, other shapes than [N, D], different widths, NaN or infinite values."""
    for name, value in (("image", image), ("text", text)):
        if value.ndim != 2:
            raise TaskError(f"{name} embeddings must be [N, D], not {list(value.shape)}")
        if not len(value) or not value.shape[1]:
            raise TaskError(f"{name} embeddings are empty: {list(value.shape)}")
        if not value.is_floating_point():
            raise TaskError(f"{name} embeddings must be floating point, not {value.dtype}")
        bad = (~torch.isfinite(value)).any(1)
        if bad.any():
            row = int(bad.nonzero()[0])
            raise TaskError(f"{int(bad.sum())} {name} embeddings have NaN or infinite values, the first is row {row}")
    if image.shape[1] != text.shape[1]:
        raise TaskError(f"image embeddings have width {image.shape[1]}, text embeddings {text.shape[1]}")


def check_pairs(pairs: Tensor, images: int, captions: int) -> None:
    """Every caption needs an image that exists, every image a caption. `pairs` int64 [captions]: index of its image.

    Raises: TaskError naming the first caption or image that has none.
    """
    if len(pairs) != captions:
        raise TaskError(f"{len(pairs)} pairs for {captions} captions; there must be one image index per caption")
    lost = ((pairs < 0) | (pairs >= images)).nonzero()
    if len(lost):
        first = int(lost[0])
        raise TaskError(f"caption {first} points to image {int(pairs[first])}; there are images 0 to {images - 1}")
    lonely = (torch.bincount(pairs, minlength=images) == 0).nonzero()
    if len(lonely):
        raise TaskError(f"{len(lonely)} images have no caption, the first is image {int(lonely[0])}")


def compute_ranks(image: Tensor, text: Tensor, pairs: Tensor, tile: int = 2048) -> Ranks:
    """Rank every image and every caption by dot product, in tiles of at most `tile` x `tile` scores.

    One multiplication serves both directions. Inputs below float32 are scored in float32; give float64 for results
    that do not depend on how a machine rounds.

    Args:
        image: [N, D]. text: [M, D]; both on one device, already normalised where cosine is meant.
        pairs: int64 [M], the image of each caption.

    Raises: TaskError for embeddings or pairs that cannot be ranked (see `check_embeddings`, `check_pairs`).

    Example: `compute_ranks(torch.eye(3), torch.eye(3), torch.arange(3)).metrics()["i2t_R@1"]` is 1.0.
    """
    check_embeddings(image, text)
    pairs = pairs.to(text.device, torch.int64)
    check_pairs(pairs, len(image), len(text))
    dtype = torch.promote_types(torch.promote_types(image.dtype, text.dtype), torch.float32)
    # captions in the order of their images: right pairs then fall into few tiles along the diagonal
    order = torch.argsort(pairs, stable=True)
    owner = pairs[order]
    ends = owner[torch.arange(tile, len(owner) + tile, tile, device=owner.device).clamp_max(len(owner)) - 1]
    spans = list(zip(owner[::tile].tolist(), ends.tolist(), strict=True))

    right_t2i = torch.empty(len(text), dtype=dtype, device=image.device)
    right_i2t = torch.full((len(image),), -torch.inf, dtype=dtype, device=image.device)
    better_t2i = torch.zeros(len(text), dtype=torch.int64, device=image.device)
    better_i2t = torch.zeros(len(image), dtype=torch.int64, device=image.device)

    def tiles(only_right: bool) -> Iterator[tuple[slice, slice, Tensor, Tensor, Tensor]]:
        """(captions, images, scores, and where the right pairs are in it: rows, columns)."""
        for index, (first, last) in enumerate(spans):
            rows = slice(index * tile, min((index + 1) * tile, len(text)))
            captions = text[order[rows]].to(dtype)
            for start in range(0, len(image), tile):
                columns = slice(start, min(start + tile, len(image)))
                holds = first < columns.stop and last >= start
                if only_right and not holds:
                    continue
                at = ((owner[rows] >= start) & (owner[rows] < columns.stop)).nonzero()[:, 0]
                yield rows, columns, captions @ image[columns].to(dtype).T, at, owner[rows][at] - start

    # The scores of right pairs come out of the very tiles that are counted later: a product of another shape may round
    # differently, and exact ties would be lost.
    for rows, columns, scores, at, column in tiles(only_right=True):
        right = scores[at, column]
        right_t2i[at + rows.start] = right
        right_i2t[columns] = right_i2t[columns].scatter_reduce(0, column, right, "amax")
    for rows, columns, scores, at, column in tiles(only_right=False):
        scores[at, column] = -torch.inf  # a right item is never better than the best right item
        better_t2i[rows] += _count(scores >= right_t2i[rows, None], 1)
        better_i2t[columns] += _count(scores >= right_i2t[columns], 0)
    t2i = torch.empty_like(better_t2i)
    t2i[order] = better_t2i + 1
    return Ranks(i2t=better_i2t + 1, t2i=t2i)


def _count(hits: Tensor, dim: int) -> Tensor:
    """How many are true along `dim`; torch sums bytes four times as fast as booleans."""
    return hits.view(torch.int8).sum(dim, dtype=torch.int32)
