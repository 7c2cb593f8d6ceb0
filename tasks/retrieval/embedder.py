"""A locked backbone as an embedder of pictures."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from tasks.contract import Grid, TaskError
from tasks.contract.frozen import Frozen

POOLINGS = ("pooled", "mean")


class Embedder(nn.Module):
    """A locked backbone and a pooling: images -> vectors of length 1."""

    def __init__(self, backbone: nn.Module, pooling: str = "pooled"):
        super().__init__()
        if pooling not in POOLINGS:
            raise TaskError(f"no pooling {pooling!r}; there are: {', '.join(POOLINGS)}")
        self.backbone, self.pooling = Frozen(backbone), pooling

    def forward(self, images: Tensor, grid: Grid, features: Any = None) -> Tensor:
        """uint8 [B, 3, H, W] -> float32 [B, D]."""
        if features is None:
            features = self.backbone(images, grid)
        vector = features.map.mean((1, 2)) if self.pooling == "mean" else getattr(features, "pooled", features)
        return F.normalize(vector.float(), dim=-1)
