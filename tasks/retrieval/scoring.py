"""`score retrieval`: metrics of embeddings that any model wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tasks.contract.score import Score
from tasks.data.arrays import read_array, shape_of
from tasks.data.documents import read_json
from tasks.data.errors import Wrong, shown
from tasks.retrieval.ranks import Ranks, chance, compute_ranks

LARGEST = 1e150  # of a product of two embeddings' greatest values, whose sums are then finite


def read_embeddings(path: str | Path) -> Tensor:
    """float64 [N, D] of a .npy array of numbers (exact for every narrower float), finite.

    Raises: Missing and Wrong naming the file, and the first row that is not finite.
    """
    array = read_array(path)
    if array.ndim != 2 or not array.size:
        raise Wrong(f"must be [N, D] embeddings, not {shape_of(array)}", path=path)
    values = array.astype(np.float64)
    if not (finite := np.isfinite(values).all(1)).all():
        row, bad = int(finite.argmin()), int((~finite).sum())
        raise Wrong(f"{bad} embeddings have NaN or infinite values", path=path, place=f"row {row}")
    return torch.from_numpy(values)


def read_pairs(path: str | Path, images: int, captions: int) -> Tensor:
    """int64 [captions], the image of each caption, of a JSON list, or an object `{"caption index": image index}`.

    Raises: Missing and Wrong naming the first caption without an image, or image without a caption.
    """
    value = read_json(path)
    if isinstance(value, Mapping):
        value = _as_list(value, captions, path)
    if not isinstance(value, list):
        raise Wrong(f"must be a list or an object, not {shown(value)}", path=path)
    if len(value) != captions:
        raise Wrong(f"{len(value)} pairs for {captions} captions; there must be one image index a caption", path=path)
    for caption, image in enumerate(value):
        if type(image) is not int:
            reason = f"points to {shown(image)}, which is not an image index"
            raise Wrong(reason, path=path, place=f"caption {caption}")
        if not 0 <= image < images:
            reason = f"points to image {shown(image)}; there are images 0 to {images - 1}"
            raise Wrong(reason, path=path, place=f"caption {caption}")
    found = torch.tensor(value, dtype=torch.int64)
    lonely = (torch.bincount(found, minlength=images) == 0).nonzero()
    if len(lonely):
        raise Wrong(f"{len(lonely)} images have no caption, the first is image {int(lonely[0])}", path=path)
    return found


def _as_list(table: Mapping[str, Any], captions: int, path: str | Path) -> list[Any]:
    for key in table:
        if not (key.isascii() and key.isdecimal() and str(int(key[:20])) == key):
            reason = f"pairs map caption indices to image indices; {shown(key)} is not a caption index"
            raise Wrong(reason, path=path)
    known = {str(i) for i in range(captions)}
    if beyond := [key for key in table if key not in known]:
        raise Wrong(f"pairs name caption {beyond[0]}; there are captions 0 to {captions - 1}", path=path)
    if without := [i for i in range(captions) if str(i) not in table]:
        raise Wrong(f"{len(without)} captions have no image, the first is caption {without[0]}", path=path)
    return [table[str(i)] for i in range(captions)]


def _directions(values: Tensor, path: str | Path) -> Tensor:
    """Embeddings of length 1."""
    largest = values.abs().amax(1, keepdim=True)
    if len(zero := (largest[:, 0] == 0).nonzero()):
        raise Wrong("embedding is zero and has no cosine", path=path, place=f"row {int(zero[0])}")
    return torch.nn.functional.normalize(values / largest, dim=1)  # squares of what is far from 1 would not be finite


def rank_embeddings(
    image_embeddings: str | Path, text_embeddings: str | Path, pairs: str | Path, inner_product: bool = False
) -> Ranks:
    """Rank of every query; arguments and errors as of `score_embeddings`.

    Example: `rank_embeddings("images.npy", "texts.npy", "pairs.json").t2i`
    """
    image, text = read_embeddings(image_embeddings), read_embeddings(text_embeddings)
    if image.shape[1] != text.shape[1]:
        raise Wrong(f"embeddings have width {image.shape[1]}, {text_embeddings} {text.shape[1]}", path=image_embeddings)
    index = read_pairs(pairs, len(image), len(text))
    if not inner_product:
        image, text = _directions(image, image_embeddings), _directions(text, text_embeddings)
    elif float(image.abs().max()) * float(text.abs().max()) > LARGEST:
        raise Wrong(f"embeddings are too large for inner products with {text_embeddings}", path=image_embeddings)
    return compute_ranks(image, text, index)


def score_embeddings(
    image_embeddings: str | Path, text_embeddings: str | Path, pairs: str | Path, inner_product: bool = False
) -> Score:
    """Metrics of image-text retrieval from files, by cosine in float64. Ties are pessimistic (see `ranks`).

    Args:
        image_embeddings, text_embeddings: .npy of [N, D] and [M, D].
        pairs: JSON, caption index -> image index (list or object).
        inner_product: score by dot products of the embeddings as they are.
    Returns: `{i2t,t2i}_R@{1,5,10}` as fractions, `_mean_rank` and `_median_rank` from 1, `chance_..._R@k` of the same.
    Raises: Missing and Wrong naming what is wrong with which file.

    Example: `score_embeddings("images.npy", "texts.npy", "pairs.json").metrics["t2i_R@1"]`
    """
    return scored(rank_embeddings(image_embeddings, text_embeddings, pairs, inner_product), inner_product)


def scored(ranks: Ranks, inner_product: bool = False) -> Score:
    """The metrics of ranks."""
    images, captions = len(ranks.i2t), len(ranks.t2i)
    expected = {f"chance_{name}": value for name, value in chance(images, captions).items()}
    protocol = "inner-product" if inner_product else "cosine"
    return Score("retrieval", protocol, ranks.metrics() | expected, {"images": images, "captions": captions})
