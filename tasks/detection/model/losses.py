"""OWL-ViT's losses: Hungarian matching, focal loss of classes, L1 and generalised IoU of boxes.

Formulas and spaces are those of the official code (scenic, `owl_vit/losses.py`, `owl_vit/matching_base_models.py`):
the cost measures L1 between centre forms, the loss between corners; all weights are 1; everything is normalised by the
image's own counts and then averaged over images.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from tasks.detection.boxes import corners, overlaps
from tasks.examples import at_once
from tasks.protocols import protocol

ALPHA, GAMMA = (protocol("detection").value(name) for name in ("focal_alpha", "focal_gamma"))
WORST = 1e6  # cost of a pair whose cost is no number: taken only where nothing else is left


def focal(logits: Tensor, wanted: Tensor) -> Tensor:
    """Focal loss of each logit, its shape; `wanted` 0 or 1 (Lin et al. 2017, alpha 0.3, gamma 2).

    Example: `focal(torch.tensor(0.0), torch.tensor(1.0))` is 0.3 * 0.25 * log 2.
    """
    from torchvision.ops import sigmoid_focal_loss

    return sigmoid_focal_loss(logits, wanted, alpha=ALPHA, gamma=GAMMA)


def matching_cost(logits: Tensor, boxes: Tensor, labels: Tensor, truth: Tensor) -> Tensor:
    """Cost [..., M, N] of giving token n to instance m of an image.

    Class part: what the focal loss of m's labels changes when they become positive; summed, not averaged, over labels.

    Args: logits [..., N, Q]; boxes [..., N, 4], truth [..., M, 4] centre form; labels [..., M, Q] 0 or 1, several an
        instance allowed.
    """
    p = logits.sigmoid()
    positive = ALPHA * (1 - p) ** GAMMA * -F.logsigmoid(logits)
    negative = (1 - ALPHA) * p**GAMMA * -F.logsigmoid(-logits)
    classes = labels.to(logits.dtype) @ (positive - negative).mT
    distance = (truth[..., :, None, :] - boxes[..., None, :, :]).abs().sum(-1)
    return classes + distance - overlaps(corners(truth)[..., :, None, :], corners(boxes)[..., None, :, :])[1]


@torch.compiler.disable  # scipy's part cannot be traced, and sizes differ from step to step
def match(cost: Tensor) -> tuple[Tensor, Tensor]:
    """The cheapest one-to-one pairs of a cost [M, N]: instances and tokens, min(M, N) each, in order of instances.

    Costs that are not finite count as very dear, so that no input stops the training.
    """
    from scipy.optimize import linear_sum_assignment  # slow to import, and a plan needs no matching

    cost = torch.nan_to_num(cost.detach().double(), WORST, WORST, -WORST).clamp(-WORST, WORST)
    rows, columns = linear_sum_assignment(cost.cpu().numpy())
    return torch.from_numpy(rows).to(cost.device), torch.from_numpy(columns).to(cost.device)


def match_images(cost: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """`match` of each image: the token of each instance, int64 [B, M], and which instances have one, bool [B, M].

    Costs [B, M, N] and `present` [B, M] travel to the host together, and the pairs come back together.
    """
    device, cost, present = cost.device, cost.detach().cpu(), present.cpu()
    token, matched = torch.zeros(present.shape, dtype=torch.int64), torch.zeros(present.shape, dtype=torch.bool)
    for i in range(len(cost)):
        instances = present[i].nonzero()[:, 0]
        rows, columns = match(cost[i, instances])
        token[i, instances[rows]], matched[i, instances[rows]] = columns, True
    return token.to(device), matched.to(device)


@at_once
def image_losses(logits: Tensor, boxes: Tensor, labels: Tensor, truth: Tensor, present: Tensor) -> tuple[Tensor, ...]:
    """Class, L1 and generalised-IoU loss of each image, [B] each; arguments as in `detection_losses`."""
    with torch.no_grad():
        token, matched = match_images(matching_cost(logits, boxes, labels, truth), present)
    won = labels & matched[..., None]
    wanted = torch.zeros_like(logits).scatter_add(1, token[..., None].expand_as(won), won.to(logits.dtype))
    found, true = corners(boxes.gather(1, token[..., None].expand(-1, -1, 4))), corners(truth)
    count = present.sum(1).clamp(min=1)
    l1 = ((found - true).abs().sum(-1) * matched).sum(1) / count
    giou = ((1 - overlaps(found, true)[1]) * matched).sum(1) / count
    return focal(logits, wanted).sum((1, 2)) / wanted.sum((1, 2)).clamp(min=1), l1, giou


def detection_losses(
    logits: Tensor, boxes: Tensor, labels: Tensor, truth: Tensor, present: Tensor
) -> Mapping[str, Tensor]:
    """Mean over images of class, L1 and generalised-IoU loss, and their sum under `loss`.

    Args:
        logits [B, N, Q], of padding queries -1e6; boxes [B, N, 4] centre form.
        labels bool [B, M, Q]; truth [B, M, 4] centre form; present [B, M] bool, False where an instance is padding.
    Returns: float32 scalars (float64 for float64 input), computed so under autocast too.

    Example: `detection_losses(found.logits, found.boxes, labels, truth, present)["loss"].backward()`
    """
    with torch.autocast(logits.device.type, enabled=False):
        if logits.dtype != torch.float64:
            logits, boxes, truth = logits.float(), boxes.float(), truth.float()
        each = image_losses(logits, boxes, labels, truth, present)
        parts = {name: value.mean() for name, value in zip(("class", "l1", "giou"), each, strict=True)}
        return {"loss": sum(parts.values()), **parts}
