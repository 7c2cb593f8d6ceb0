"""mIoU, mAcc and aAcc from confusion matrices, computed where the predictions are.

Counts are kept per image as `[3, C]`: intersection, predicted area, labelled area. Everything the metrics need is
there, and 3 C numbers an image are small enough to keep for bootstrap intervals (a matrix of 150 classes is not).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tasks.data.readers.label_maps import IGNORE

MAX_CLASSES = 255  # label maps are bytes, and one value is needed for "ignored"


def _bytes(values: Tensor, what: str) -> Tensor:
    """Integers as uint8, without wrapping around."""
    if values.dtype == torch.uint8:
        return values
    assert not values.is_floating_point(), f"{what} must be integers, not {values.dtype}"
    if values.numel():
        low, high = (v.item() for v in values.aminmax())
        if low < 0 or high > 255:
            raise ValueError(f"{what} {low if low < 0 else high} is out of range; label maps hold 0..255")
    return values.to(torch.uint8)


def pair_counts(prediction: Tensor, label: Tensor) -> Tensor:
    """How often label i and prediction j meet: int64 `[256, 256]` of integer tensors of one shape and device.

    Raises: ValueError for a value that is no byte.
    """
    assert prediction.shape == label.shape, (prediction.shape, label.shape)
    prediction, label = _bytes(prediction, "prediction"), _bytes(label, "label")
    # All 256 x 256 pairs of bytes are counted: no masking pass over the pixels, and what is out of range can be told
    # afterwards from the counts. On a CPU passes over memory cost more than the counting.
    joint = label.to(torch.int32).mul_(256).add_(prediction)
    return torch.bincount(joint.reshape(-1), minlength=65536).view(256, 256)


def confusion_matrix(prediction: Tensor, label: Tensor, num_classes: int, ignore_index: int = IGNORE) -> Tensor:
    """Matrix `[C, C + 1]` int64 of one image: rows are labels, columns predictions, the last one those out of range.

    `prediction` and `label` are integer tensors of one shape, on one device. Pixels labelled `ignore_index` do not
    count. A prediction out of range agrees with no class, as in mmseg; a label out of range is an error.

    Raises: ValueError for a label out of range.

    Example: `confusion_matrix(torch.tensor([0, 1]), torch.tensor([0, 255]), 2)` is `[[1, 0, 0], [0, 0, 0]]`.
    """
    assert 0 < num_classes <= MAX_CLASSES, num_classes
    counts = pair_counts(prediction, label)
    rows = counts.sum(1)
    rows[:num_classes] = 0
    if ignore_index < 256:
        counts[ignore_index] = 0  # may be one of the classes: its pixels do not count then
        rows[ignore_index] = 0
    if rows.any():
        bad = int(rows.nonzero()[0])
        raise ValueError(f"label {bad} is out of range; labels are 0..{num_classes - 1} or {ignore_index} (ignored)")
    known = counts[:num_classes]
    return torch.cat((known[:, :num_classes], known[:, num_classes:].sum(1, keepdim=True)), 1)


def image_counts(prediction: Tensor, label: Tensor, num_classes: int, ignore_index: int = IGNORE) -> Tensor:
    """`[3, C]` int64 of one image: intersection, predicted area, labelled area (ignored pixels in none of them).

    Raises: ValueError for a label out of range.

    Example: `image_counts(prediction, label, 150).sum(0)`
    """
    matrix = confusion_matrix(prediction, label, num_classes, ignore_index)
    return torch.stack((matrix.diagonal(), matrix[:, :num_classes].sum(0), matrix.sum(1)))


def chance_iou(counts: Tensor) -> float:
    """mIoU of the best constant map, from summed counts `[3, C]`: one class everywhere, 0 for all others that occur.

    Example: a set of 60 % wall, 30 % floor and 10 % door has a chance of 0.6 / 3 = 0.2
    """
    labelled = counts[2].double().cpu()
    return (labelled.max() / (labelled.sum() * (labelled > 0).sum())).item()


def scores(counts: Tensor) -> dict[str, float]:
    """`mIoU`, `mAcc`, `aAcc` as fractions from summed counts `[3, C]`; NaN where nothing is labelled or predicted.

    Means go over the classes that occur (IoU: in label or prediction; accuracy: in the label), as in mmseg.

    Example: `scores(per_image.sum(0))["mIoU"]`
    """
    intersection, predicted, labelled = counts.double().cpu()
    total = labelled.sum().item()
    return {
        "mIoU": (intersection / (predicted + labelled - intersection)).nanmean().item(),
        "mAcc": (intersection / labelled).nanmean().item(),
        "aAcc": intersection.sum().item() / total if total else math.nan,
    }


def class_scores(counts: Tensor, names: Sequence[str]) -> dict[str, float]:
    """IoU of each class that occurs in label or prediction, from summed counts `[3, C]`.

    Example: `class_scores(counts, ["sky", "road"])` -> `{"sky": 0.91, "road": 0.87}`
    """
    assert len(names) == counts.shape[1], (len(names), counts.shape)
    intersection, predicted, labelled = counts.double().cpu()
    iou = intersection / (predicted + labelled - intersection)
    return {name: value for name, value in zip(names, iou.tolist(), strict=True) if not math.isnan(value)}
