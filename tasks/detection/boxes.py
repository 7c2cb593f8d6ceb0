"""Boxes between pixels, padded squares and the unit square; the best box-category pairs of an image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tasks.contract import TaskError


def box_bias(h: int, w: int, device: torch.device | str | None = None, size: float | None = None) -> Tensor:
    """Where a token's box starts from, before the sigmoid: float32 [h * w, 4], row by row (OWL-ViT, `utils.py`).

    Centre: the bottom right corner of the patch (not its middle), size: one patch. The official code takes 1/w for
    both sides, transformers 1/w and 1/h as here; they agree on square grids. `size`: sides that do not depend on the
    patch, as a share of the image.

    Example: `box_bias(3, 3)[0]` is four times -0.6930.
    """

    def unsigmoid(x: Tensor) -> Tensor:
        return torch.log(x + 1e-4) - torch.log1p(-x + 1e-4)

    y, x = (torch.arange(1, n + 1, device=device, dtype=torch.float32) / n for n in (h, w))
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    sides = [torch.full_like(rows, size or 1 / n) for n in (w, h)]
    return unsigmoid(torch.stack([columns, rows, *sides], dim=-1)).flatten(0, 1)


def pad_square(image: Tensor, side: int, value: float = 0.5, antialias: bool = False) -> tuple[Tensor, float]:
    """Longer side to `side`, the rest filled at the bottom and the right.

    Args: image uint8 [3, H, W]. value: grey as a fraction of white; training used 0.5, the published evaluation 0.
    Returns: uint8 [3, side, side] and the factor from pixels to padded pixels.
    """
    height, width = image.shape[-2:]
    if min(height, width) < 1:
        raise TaskError(f"image of {width}x{height} px has no pixels")
    factor = side / max(height, width)
    size = tuple(min(side, max(1, round(s * factor))) for s in (height, width))
    small = image[None].float()
    if size != (height, width):
        small = F.interpolate(small, size, mode="bilinear", align_corners=False, antialias=antialias)
    out = torch.full((3, side, side), round(value * 255), dtype=torch.uint8, device=image.device)
    out[:, : size[0], : size[1]] = small[0].round().clamp(0, 255).to(torch.uint8)
    return out, factor


def to_unit(xywh: Tensor, height: int, width: int) -> Tensor:
    """Pixel boxes x, y, w, h [..., 4] to centre form in the padded unit square."""
    corner, size = xywh[..., :2], xywh[..., 2:]
    return torch.cat([corner + size / 2, size], -1) / max(height, width)


def to_pixels(cxcywh: Tensor, height: int | Tensor, width: int | Tensor) -> Tensor:
    """The way back: centre form in the padded square [..., 4] to x, y, w, h in pixels, cut at the image's edges.

    `height`, `width`: numbers, or tensors that broadcast against `cxcywh[..., 0]`.
    """
    height, width = (torch.as_tensor(s, dtype=cxcywh.dtype, device=cxcywh.device) for s in (height, width))
    boxes = cxcywh * torch.maximum(height, width)[..., None]
    low, high = boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2
    edge = torch.stack(torch.broadcast_tensors(width, height), -1)
    low, high = (torch.minimum(corner.clamp(min=0), edge) for corner in (low, high))
    return torch.cat([low, high - low], -1)


def top_pairs(logits: Tensor, boxes: Tensor, limit: int = 300) -> tuple[Tensor, Tensor, Tensor]:
    """The best (box, category) pairs of each image: several labels a box, no suppression, no threshold.

    Args: logits [B, N, Q], boxes [B, N, 4].
    Returns: scores [B, K] falling, in 0-1; categories int64 [B, K]; boxes [B, K, 4]; K = min(limit, N * Q).
    """
    scores, place = logits.flatten(1).topk(min(limit, logits[0].numel()), dim=1)
    token = (place // logits.shape[2])[..., None].expand(-1, -1, 4)
    return scores.sigmoid(), place % logits.shape[2], boxes.gather(1, token)


def corners(cxcywh: Tensor) -> Tensor:
    """Centre form [..., 4] to x0, y0, x1, y1."""
    half = cxcywh[..., 2:] / 2
    return torch.cat([cxcywh[..., :2] - half, cxcywh[..., :2] + half], -1)


def overlaps(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU of boxes x0, y0, x1, y1 [..., 4] that broadcast: `[N, 1, 4]` with `[M, 4]` for all pairs.

    1e-6 is added to union and hull as officially, so two boxes without area have a number too.
    """
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    iou = shared / (union + 1e-6)
    return iou, iou - (hull - union) / (hull + 1e-6)
