"""Losses of upstream training, and mixup (big_vision `utils.py`, `trainers/proj/flexi/distill.py`)."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn import functional as F


def kl_divergence(teacher: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """`t^2 * sum p_t (log p_t - log p_s)` of logits [B, K] twice, to [B] (their `kl` at temperature t).

    Example: `kl_divergence(teacher_logits, student_logits).mean()`
    """
    own = F.log_softmax(teacher / temperature, dim=-1)
    other = F.log_softmax(student / temperature, dim=-1)
    return temperature**2 * (own.exp() * (own - other)).sum(-1)


def sigmoid_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Summed over the classes: [B, K] twice, to [B] (their `sigmoid_xent`).

    Example: `sigmoid_cross_entropy(logits, one_hot).mean()`
    """
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(-1)


def mixup_share(generator: np.random.Generator, strength: float) -> float:
    """How much of itself a picture keeps, 0.5 to 1: a = max(b, 1 - b) with b ~ Beta(strength, strength); 1 at 0.

    Example: `mixup_share(np.random.default_rng(0), 0.2)`
    """
    drawn = generator.beta(strength, strength) if strength > 0 else 1.0
    return float(max(drawn, 1 - drawn))


def mix(share: float, *batches: Tensor) -> tuple[Tensor, ...]:
    """`share * x + (1 - share) * roll(x, 1)` of each batch [B, ...], all alike: one share a step, as theirs.

    Example: `images, teacher_images = mix(0.8, images, teacher_images)`
    """
    return tuple(share * x + (1 - share) * x.roll(1, 0) for x in batches)
