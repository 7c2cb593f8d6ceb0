"""Stateless randomness: every draw is a function of (seed, what it is for, where we are), so a resume repeats it."""

from __future__ import annotations

import functools

import numpy as np
import torch

_PURPOSES = ("order", "sample", "batch", "model", "head", "backbone")


def seed_of(purpose: str, *numbers: int) -> int:
    """A 63-bit seed, far from that of neighbouring numbers.

    Example: `seed_of("batch", seed, step)`
    """
    words = [_PURPOSES.index(purpose), *(int(n) % 2**63 for n in numbers)]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)


def generator(purpose: str, *numbers: int) -> torch.Generator:
    """A CPU generator for one purpose and place."""
    return torch.Generator().manual_seed(seed_of(purpose, *numbers))


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed_of("order", seed, epoch)).permutation(count)


def training_places(seed: int, step: int, batch: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """int64 indices [batch] and epochs [batch] of the images of step `step` (from 0): shuffled epochs one after
    another, none cut short.

    Example: `index, epoch = training_places(seed=0, step=7, batch=64, count=1000)`
    """
    epoch, place = np.divmod(np.arange(step * batch, (step + 1) * batch), count)
    index = np.empty(batch, np.int64)
    for number in np.unique(epoch):
        now = epoch == number
        index[now] = _order(seed, int(number), count)[place[now]]
    return index, epoch


def training_indices(seed: int, step: int, batch: int, count: int) -> list[tuple[int, int]]:
    """`training_places` as (index, epoch) pairs.

    Example: `training_indices(seed=0, step=7, batch=64, count=1000)`
    """
    index, epoch = training_places(seed, step, batch, count)
    return list(zip(index.tolist(), epoch.tolist(), strict=True))
