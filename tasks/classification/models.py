"""Heads: one that is fine-tuned with its backbone, a bank of linear probes on a locked one, none for k-NN."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from tasks.contract import Grid, TaskError
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


class Standardised(nn.Module):
    """`(x - mean) / sqrt(variance + 1e-6)` of features [B, D], by statistics that are measured once.

    Example: `norm.measure(model.features(batch.images, grid) for batch, grid in batches)`
    """

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))

    def measure(self, features: Iterable[Tensor]) -> None:
        """Mean and (biased) variance over all rows of `features`, each [B, D], summed in float64."""
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        for x in features:
            x = x.double()
            count, total, squares = count + len(x), total.to(x) + x.sum(0), squares.to(x) + (x * x).sum(0)
        if count:
            mean = total / count
            self.mean.copy_(mean)
            self.variance.copy_((squares / count - mean * mean).clamp_min(0))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) * torch.rsqrt(self.variance + 1e-6)


class LinearProbes(nn.Module):
    """Linear classifiers side by side on a locked backbone, one for each learning rate, trained in one pass.

    Features are standardised by their mean and variance over training pictures, so that one range of learning rates
    serves all backbones, and so that no loss depends on how a batch is cut. The classifiers share nothing that is
    trained.
    """

    def __init__(self, backbone: nn.Module, classes: int, rates: Sequence[float]):
        super().__init__()
        self.backbone = Frozen(backbone)
        self.norm = Standardised(backbone.embed_dim)
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


class PublishedHead(nn.Module):
    """A backbone with the classifier that it came with, as it is.

    Args: label_map: place of each class among the classifier's outputs, int64 [C]; None: the classifier's own order.

    Raises: TaskError for a backbone without a classifier, or of another number of classes without a map.
    """

    def __init__(self, backbone: nn.Module, classes: int, label_map: Tensor | None = None):
        super().__init__()
        head = getattr(backbone, "head", None)
        if head is None:
            raise TaskError(
                f"{type(backbone).__name__} has no classifier; protocol head evaluates the one it came with"
            )
        outputs = head.out_features
        if label_map is None and outputs != classes:
            raise TaskError(
                f"the classifier tells {outputs} classes and the data have {classes}; set options.label_map"
            )
        if label_map is not None and (len(label_map) != classes or int(label_map.max()) >= outputs):
            reached = f"{len(label_map)} places up to {int(label_map.max())}"
            raise TaskError(f"label_map: {reached}, for {classes} classes out of {outputs} outputs")
        self.backbone, self.label_map = Frozen(backbone), label_map

    def forward(self, images: Tensor, grid: Grid) -> Tensor:
        """Images [B, 3, H, W] -> logits [B, C]."""
        with torch.no_grad():
            logits = self.backbone.head(self.backbone(images, grid).pooled)
        return logits if self.label_map is None else logits[:, self.label_map.to(logits.device)]


class Locked(nn.Module):
    """A backbone whose features are compared as they are: of length 1, or with `unit=False` of their own."""

    def __init__(self, backbone: nn.Module, unit: bool = True):
        super().__init__()
        self.backbone, self.unit = Frozen(backbone), unit

    def forward(self, images: Tensor, grid: Grid) -> Tensor:
        """Images [B, 3, H, W] -> float32 [B, D]."""
        pooled = self.backbone(images, grid).pooled.float()
        return nn.functional.normalize(pooled, dim=-1) if self.unit else pooled
