"""Accuracy from records, and nearest-neighbour votes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from tasks.contract import TaskError
from tasks.contract.meters import Records
from tasks.protocols import protocol

PROTOCOL = protocol("classification")

TOP = 5  # classes that are kept of each picture


def right(records: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """bool [N] for top1 and top5. `ranked` [N, k <= 5] best labels first; `label` [N] or [N, L], -1 for none."""
    ranked, label = torch.as_tensor(records["ranked"]).long(), torch.as_tensor(records["label"]).long()
    label = label[:, None] if label.ndim == 1 else label
    hit = (ranked[:, :, None] == label[:, None, :]).any(-1)
    labelled = (label >= 0).any(-1)
    return {"top1": hit[labelled, 0], "top5": hit[labelled].any(-1)}


def accuracy(records: Records) -> dict[str, float]:
    """`top1` and `top5` as fractions of the pictures that have a label.

    Example: `accuracy({"ranked": torch.tensor([[2, 1]]), "label": torch.tensor([1])})["top5"] == 1.0`
    """
    found = right(records)
    if not len(found["top1"]):
        raise TaskError("no picture has a label")
    return {name: float(values.double().mean()) for name, values in found.items()}


def neighbour_votes(
    gallery: Tensor, labels: Tensor, queries: Tensor, classes: int, neighbours: int, temperature: float
) -> Tensor:
    """Best labels [N, k <= 5] by votes of the nearest gallery vectors (length 1), weighted exp(cosine / temperature).

    Raises: TaskError where the gallery is smaller than the number of neighbours.
    """
    import faiss

    if len(gallery) < neighbours:
        raise TaskError(f"{neighbours} neighbours of {len(gallery)} training images; lower `neighbours`")
    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(np.ascontiguousarray(gallery.numpy(), np.float32))
    similarity, found = index.search(np.ascontiguousarray(queries.numpy(), np.float32), neighbours)
    # relative to the best neighbour: exp(1 / 0.07) of all would lose small differences
    weights = np.exp((similarity - similarity[:, :1]) / temperature)
    votes = np.zeros((len(queries), classes))
    rows = np.repeat(np.arange(len(queries)), neighbours)
    np.add.at(votes, (rows, labels.numpy()[found].ravel()), weights.ravel())
    return torch.from_numpy(np.argsort(-votes, axis=1, kind="stable")[:, :TOP].copy())


def few_per_class(labels: np.ndarray, classes: int, shots: int, seed: int) -> np.ndarray:
    """Places int64 of `shots` pictures of each class at random, as big_vision's `fewshot_lsr` draws them.

    One generator permutes class after class, so that fewer shots are a part of more.

    Example: `len(few_per_class(np.array([0, 1, 0, 1]), 2, 1, seed=0)) == 2`
    """
    generator = np.random.default_rng(seed)
    return np.concatenate([generator.permutation(np.flatnonzero(labels == c))[:shots] for c in range(classes)])


def least_squares(gallery: Tensor, labels: Tensor, queries: Tensor, classes: int) -> Tensor:
    """Best labels [N, k <= 5] by regularised least squares on few features (big_vision `evaluators/fewshot_lsr.py`).

    Features are whitened by mean and standard deviation of the gallery, a large constant is added for the bias, targets
    are -1 and 1. Float64, by the dual where features outnumber pictures.

    Args: gallery float [G, D], labels int64 [G], queries float [N, D].
    """
    known, asked = gallery.double(), queries.double()
    mean, deviation = known.mean(0), known.std(0, correction=0) + PROTOCOL.value("fewshot_epsilon")
    bias, penalty = PROTOCOL.value("fewshot_bias"), PROTOCOL.value("fewshot_l2")
    known, asked = (torch.nn.functional.pad((x - mean) / deviation, (0, 1), value=bias) for x in (known, asked))
    wanted = 2.0 * torch.nn.functional.one_hot(labels.long(), classes).double() - 1
    if len(known) >= known.shape[1]:
        gram = known.T @ known + penalty * torch.eye(known.shape[1], dtype=torch.float64)
        weights = torch.linalg.solve(gram, known.T @ wanted)
    else:
        gram = known @ known.T + penalty * torch.eye(len(known), dtype=torch.float64)
        weights = known.T @ torch.linalg.solve(gram, wanted)
    return (asked @ weights).topk(min(TOP, classes), dim=1).indices
