"""Decode heads by name, built from mmsegmentation's registry. No parameter of any depends on the grid."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tasks.contract import Grid, TaskError
from tasks.data.readers.label_maps import IGNORE
from tasks.protocols import protocol

PROTOCOL = protocol("segmentation")


def _common(width: int, num_classes: int) -> dict[str, Any]:
    # avg_non_ignore: the mean goes over labelled pixels, so that the loss of a batch is the mean its count belongs to
    loss = {"type": "CrossEntropyLoss", "use_sigmoid": False, "avg_non_ignore": True}
    return {
        "in_channels": width, "channels": width, "num_classes": num_classes, "align_corners": False,
        "dropout_ratio": 0.0, "ignore_index": IGNORE, "loss_decode": loss,
    }  # fmt: skip


def linear_head(width: int, num_classes: int) -> dict[str, Any]:
    """Config of Segmenter's linear decoder: mmseg's `FCNHead` as one 1x1 convolution."""
    extra = {"type": "FCNHead", "num_convs": 0, "concat_input": False, "kernel_size": 1, "norm_cfg": None}
    return {**_common(width, num_classes), **extra}


def segmenter_head(width: int, num_classes: int) -> dict[str, Any]:
    """Config of Segmenter's mask transformer: 2 layers, heads of 64 channels as in the encoder, dropout 0.1."""
    heads = max(1, width // PROTOCOL.value("mask_head_width"))
    dropout = PROTOCOL.value("mask_dropout")
    while width % heads:
        heads -= 1
    extra = {
        "type": "SegmenterMaskTransformerHead", "num_layers": PROTOCOL.value("mask_layers"), "num_heads": heads,
        "embed_dims": width, "drop_path_rate": 0.0, "drop_rate": dropout, "attn_drop_rate": dropout,
    }  # fmt: skip
    return {**_common(width, num_classes), **extra}


def _group_norm(width: int) -> dict[str, Any]:
    # Batch statistics would make the head depend on how a batch is cut (and fail on one image of one grid cell);
    # at least 4 channels a group, because the pyramid pools down to a single position
    return {"type": "GN", "num_groups": next(g for g in (32, 16, 8, 4, 2, 1) if width % (4 * g) == 0 or g == 1)}


def upernet_head(width: int, num_classes: int) -> dict[str, Any]:
    """Config of UPerNet over a pyramid of four maps (4, 2, 1 and 1/2 times the grid), group norm, at most 512 wide."""
    channels = min(512, width)
    extra = {
        "type": "UPerHead", "in_channels": [width] * 4, "in_index": [0, 1, 2, 3], "channels": channels,
        "pool_scales": (1, 2, 3, 6), "norm_cfg": _group_norm(channels),
    }  # fmt: skip
    return {**_common(width, num_classes), **extra}


HEADS: dict[str, Callable[[int, int], dict[str, Any]]] = {
    "linear": linear_head,
    "segmenter": segmenter_head,
    "upernet": upernet_head,
}


def quarters(backbone: nn.Module) -> tuple[int, ...]:
    """Blocks that end the first three quarters of a backbone, `(2, 5, 8)` of twelve; none without inner maps."""
    trunk = getattr(backbone, "trunk", None)
    depth = len(trunk.blocks) if trunk is not None else 0
    return tuple(depth * part // 4 - 1 for part in (1, 2, 3)) if depth >= 4 else ()


class Segmenter(nn.Module):
    """Backbone and decode head.

    `model(images, grid)` -> logits `[B, C, h', w']` at the head's own resolution (the grid; 4 times the grid with
    upernet). Images are uint8 `[B, 3, H, W]`, or float already normalised.

    Raises: TaskError for a head that is not known.

    Example: `Segmenter(build_backbone("flexivit_nano"), "linear", 150)(images, grid=15).shape[1] == 150`
    """

    def __init__(self, backbone: nn.Module, head: str, num_classes: int):
        super().__init__()
        if head not in HEADS:
            near = difflib.get_close_matches(head, HEADS, 1, 0.4)
            raise TaskError(f"no head {head!r}; {'nearest: ' + near[0] if near else 'known: ' + ', '.join(HEADS)}")
        from tasks.segmentation import mmcv_lite

        mmcv_lite.install()
        import mmseg.models  # noqa: F401  (fills the registry)
        from mmseg.registry import MODELS

        self.backbone, self.num_classes = backbone, num_classes
        width = backbone.embed_dim
        self.neck, self.taps = None, ()
        if head == "upernet":
            self.taps = quarters(backbone)
            self.neck = MODELS.build({"type": "Feature2Pyramid", "embed_dim": width, "norm_cfg": _group_norm(width)})
        self.head = MODELS.build(HEADS[head](width, num_classes))
        disabled = logging.root.manager.disable
        logging.disable(logging.INFO)  # mmengine logs every parameter that it initialises
        try:
            self.head.init_weights()
        finally:
            logging.disable(disabled)

    def maps(self, images: Tensor, grid: Grid) -> tuple[Tensor, ...]:
        """What the head reads: the feature map `[B, D, h, w]`, or four of a pyramid.

        The pyramid is made of the maps at a quarter, half, three quarters and the end of the backbone, the last one
        after the final norm; a backbone that gives no inner maps gives its only one four times.
        """
        features = self.backbone(images, grid, **({"taps": self.taps} if self.taps else {}))
        last = features.map
        inner = [features.taps[i] for i in self.taps] or [last] * 3
        maps = [m.permute(0, 3, 1, 2).contiguous() for m in (*inner, last)]
        return (maps[-1],) if self.neck is None else self.neck(tuple(maps))

    def forward(self, images: Tensor, grid: Grid) -> Tensor:
        return self.head(self.maps(images, grid))

    def loss(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """mmseg's losses of logits `[B, C, h, w]` against labels `[B, H, W]` (255: ignored); `loss_ce`, `acc_seg`."""
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample

        samples = [SegDataSample(gt_sem_seg=PixelData(data=label[None])) for label in labels.long()]
        losses = self.head.loss_by_feat(logits, samples)
        return {name: value if isinstance(value, Tensor) else torch.as_tensor(value) for name, value in losses.items()}
