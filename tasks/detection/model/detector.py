"""The detector: any backbone, OWL-ViT's heads, a text tower."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from tasks.detection.model.heads import Detected, DetectionHeads
from tasks.text.locked import Encoded


class Detector(nn.Module):
    """Backbone, heads and text tower; nothing in it knows a grid.

    Args: backbone: images [B, 3, H, W], grid -> Features; `embed_dim`. text: open_clip text tower (`output_dim`).
        heads: arguments of `DetectionHeads` (merge, objectness, gelu, merge_eps, size_bias).

    Example::

        detector = Detector(build_backbone("flexivit_nano"), build_text_tower())
        found = detector(images, grid=(30, 30), queries=category_queries(detector.text, names), normalised=True)
    """

    def __init__(self, backbone: nn.Module, text: nn.Module, **heads: Any):
        super().__init__()
        self.backbone, self.text = backbone, text
        self.heads = DetectionHeads(backbone.embed_dim, text.output_dim, **heads)
        self.encoded = Encoded()  # by the text tower, while it is locked

    def forward(
        self, images: Tensor, grid: Any, queries: Tensor | None, mask: Tensor | None = None, normalised: bool = False
    ) -> Detected:
        """`queries` [Q, E] for all images or [B, Q, E]; the other arguments as in `ClassHead`."""
        return self.heads(self.backbone(images, grid), queries, mask, normalised)


def without_rescale(backbone: nn.Module) -> nn.Module:
    """Stochastic depth as OWL-ViT has it, in place: kept branches are not divided by their probability."""
    from timm.layers import DropPath

    for part in backbone.modules():
        if isinstance(part, DropPath):
            part.scale_by_keep = False
    return backbone
