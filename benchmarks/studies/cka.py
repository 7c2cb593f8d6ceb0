"""Linear CKA with the unbiased HSIC estimate, summed over minibatches, and classical scaling of its distances."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class MinibatchCKA:
    """CKA between `count` representations of the same samples (Nguyen et al. 2021, equations 2 and 3).

    Each batch adds its unbiased HSIC of every pair; `matrix()` divides the sums. With one batch it is CKA itself with
    the unbiased estimate (Song et al. 2012), with several no longer biased by the size of a batch.

    Example::

        cka = MinibatchCKA(2)
        cka.add([torch.randn(50, 8), torch.randn(50, 32)])
        cka.matrix()[0, 1]
    """

    def __init__(self, count: int):
        self.hsic = torch.zeros(count, count, dtype=torch.float64)

    @torch.no_grad()
    def add(self, features: Sequence[Tensor]) -> None:
        """Add one batch: `count` tensors `[samples, D_i]`. Raises ValueError under four samples: HSIC needs four."""
        samples = len(features[0])
        if samples < 4:
            raise ValueError(f"a batch of {samples} samples is too small for CKA; it takes 4 or more")
        grams = torch.stack([_gram(f) for f in features])
        sums = grams.sum(2)
        total = sums.sum(1)
        flat = grams.flatten(1)
        trace = flat @ flat.T
        mixed = sums @ sums.T
        outer = total[:, None] * total[None] / ((samples - 1) * (samples - 2))
        found = (trace + outer - 2 / (samples - 2) * mixed) / (samples * (samples - 3))
        self.hsic += found.cpu()

    def matrix(self) -> Tensor:
        """CKA `[count, count]`, float64, ones on the diagonal; unbiased, so slightly below zero is possible.

        NaN for a representation that is the same for all samples, as the cls token before the first block.
        """
        scale = self.hsic.diagonal().clamp_min(0).sqrt()
        return self.hsic / (scale[:, None] * scale[None])


def _gram(features: Tensor) -> Tensor:
    """`F F^T` with a zero diagonal, float64; the mean goes first, which HSIC ignores but rounding does not."""
    features = features.double()
    centred = features - features.mean(0)
    if centred.abs().max() <= 1e-12 * features.abs().max():  # constant but for the mean's rounding
        centred = torch.zeros_like(centred)
    gram = centred @ centred.T
    return gram.fill_diagonal_(0)


def arc_cosine(cka: Tensor) -> Tensor:
    """Distance `arccos(CKA)` in radians, 0 to pi/2 where CKA is not negative (Williams et al. 2021)."""
    distance = cka.clamp(-1, 1).acos()
    return distance.fill_diagonal_(0)


def classical_scaling(distance: Tensor, dimensions: int = 2) -> np.ndarray:
    """Points `[n, dimensions]` whose distances are nearest (Torgerson's multidimensional scaling).

    Example: `classical_scaling(torch.tensor([[0.0, 3.0], [3.0, 0.0]]))`
    """
    squared = distance.double().numpy() ** 2
    count = len(squared)
    centring = np.eye(count) - 1 / count
    values, vectors = np.linalg.eigh(-0.5 * centring @ squared @ centring)
    first = np.argsort(values)[::-1][:dimensions]
    return vectors[:, first] * np.sqrt(np.clip(values[first], 0, None))
