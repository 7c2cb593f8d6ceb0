"""Heads: one that is fine-tuned with its backbone, a bank of linear probes on a locked one, none for k-NN."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tasks.contract import Grid
from tasks.contract.frozen import Frozen


class Classifier(nn.Module):
    """Backbone and a linear layer that starts at zero, as big_vision's transfer does."""

    def __init__(self, backbone: nn.Module, classes: int):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.embed_dim, classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor, grid: Grid) -> Tensor:
        """Images [B, 3, H, W] -> logits [B, C]."""
        return self.head(self.backbone(images, grid).pooled)


class LinearProbes(nn.Module):
    """Linear classifiers side by side on a locked backbone, one for each learning rate, trained in one pass.

    Features are standardised by a batch norm without parameters, so that one range of learning rates serves all
    backbones. The classifiers share nothing that is trained.
    """

    def __init__(self, backbone: nn.Module, classes: int, rates: Sequence[float]):
        super().__init__()
        self.backbone = Frozen(backbone)
        self.norm = nn.BatchNorm1d(backbone.embed_dim, affine=False, eps=1e-6)
        self.heads = nn.ModuleList(nn.Linear(backbone.embed_dim, classes) for _ in rates)
        for head in self.heads:
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def features(self, images: Tensor, grid: Grid) -> Tensor:
        """float32 [B, D]."""
        with torch.no_grad():
            return self.backbone(images, grid).pooled.float()

    def forward(self, images: Tensor, grid: Grid) -> Tensor:
        """Images [B, 3, H, W] -> logits [K, B, C] of K classifiers."""
        x = self.norm(self.features(images, grid))
        return torch.stack([head(x) for head in self.heads])


class Locked(nn.Module):
    """A backbone whose features of length 1 are compared as they are."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = Frozen(backbone)

    def forward(self, images: Tensor, grid: Grid) -> Tensor:
        """Images [B, 3, H, W] -> float32 [B, D]."""
        return nn.functional.normalize(self.backbone(images, grid).pooled.float(), dim=-1)
