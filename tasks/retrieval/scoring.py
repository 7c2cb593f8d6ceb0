"""`score retrieval`: metrics of embeddings that any model wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tasks.contract import TaskError
from tasks.retrieval.ranks import Ranks, chance, check_embeddings, compute_ranks


def read_embeddings(path: str | Path) -> Tensor:
    """A .npy array [N, D] of floats, as float64 (exact for every narrower float).

    Raises: TaskError naming the file where it is missing or no such array.
    """
    import numpy as np

    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise TaskError(f"no file {path}") from error
    except (ValueError, EOFError, OSError) as error:
        raise TaskError(f"{path} is not a .npy array: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise TaskError(f"{path} does not hold one array of numbers")
    return torch.from_numpy(array.astype(np.float64))


def read_pairs(path: str | Path, captions: int) -> Tensor:
    """JSON with the image index of each caption: a list, or an object `{"caption index": image index}`.

    Returns: int64 [captions].
    Raises: TaskError naming the first caption without an image.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TaskError(f"no file {path}") from error
    except ValueError as error:
        raise TaskError(f"{path} is not JSON: {error}") from error
    return parse_pairs(value, captions)


def parse_pairs(value: Any, captions: int) -> Tensor:
    """See `read_pairs`."""
    if isinstance(value, Mapping):
        if any(not str(k).isdecimal() for k in value):
            bad = next(k for k in value if not str(k).isdecimal())
            raise TaskError(f"pairs map caption indices to image indices; {bad!r} is not a caption index")
        table = {int(k): v for k, v in value.items()}
        beyond = [k for k in table if k >= captions]
        if beyond:
            raise TaskError(f"pairs name caption {min(beyond)}; there are captions 0 to {captions - 1}")
        without = [i for i in range(captions) if i not in table]
        if without:
            raise TaskError(f"{len(without)} captions have no image, the first is caption {without[0]}")
        value = [table[i] for i in range(captions)]
    if not isinstance(value, list):
        raise TaskError(f"pairs must be a list or an object, not {type(value).__name__}")
    for i, image in enumerate(value):
        if not isinstance(image, int) or isinstance(image, bool):
            raise TaskError(f"caption {i} points to {image!r}, which is not an image index")
    return torch.tensor(value, dtype=torch.int64)


def score_embeddings(
    image_embeddings: str | Path, text_embeddings: str | Path, pairs: str | Path, cosine: bool = False
) -> dict[str, Any]:
    """Metrics of image-text retrieval from files.

    Scores are dot products of the embeddings as they are, in float64; `cosine` normalises them first.

    Args:
        image_embeddings, text_embeddings: .npy of [N, D] and [M, D].
        pairs: JSON, caption index -> image index (list or object).

    Returns: `metrics` (fractions 0-1, ranks from 1), `ranks` per query, `chance`, `images`, `captions`, `ties`.
    Raises: TaskError naming what is wrong with which file.

    Example: `score_embeddings("images.npy", "texts.npy", "pairs.json")["metrics"]["t2i_R@1"]`
    """
    image, text = read_embeddings(image_embeddings), read_embeddings(text_embeddings)
    check_embeddings(image, text)
    index = read_pairs(pairs, len(text))
    if cosine:
        for name, value in ((image_embeddings, image), (text_embeddings, text)):
            zero = (value.norm(dim=1) == 0).nonzero()
            if len(zero):
                raise TaskError(f"{name}: embedding {int(zero[0])} is zero and has no cosine")
        image, text = (torch.nn.functional.normalize(x, dim=1) for x in (image, text))
    ranks = compute_ranks(image, text, index)
    return result(ranks)


def result(ranks: Ranks) -> dict[str, Any]:
    """What `score retrieval` prints as JSON."""
    images, captions = len(ranks.i2t), len(ranks.t2i)
    return {
        "task": "retrieval",
        "metrics": ranks.metrics(),
        "chance": chance(images, captions),
        "images": images,
        "captions": captions,
        "ties": "pessimistic",
        "ranks": {"i2t": ranks.i2t.tolist(), "t2i": ranks.t2i.tolist()},
    }
