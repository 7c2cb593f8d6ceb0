"""Vectors of length 1, as OWL-ViT and CLIP compare them."""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-6  # added to norms, not a lower bound


def unit(vectors: Tensor) -> Tensor:
    """`v / (|v| + 1e-6)` along the last axis, in float32; zero stays zero."""
    vectors = vectors.float()
    return vectors / (torch.linalg.vector_norm(vectors, dim=-1, keepdim=True) + EPS)
