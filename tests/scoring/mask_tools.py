"""Label maps to score, and mmseg's own metric over them."""

import numpy as np
import torch
from PIL import Image

NAMES = ("mIoU", "mAcc", "aAcc")


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def mmseg_scores(pairs, num_classes, ignore_index=255):
    """mmseg's metric before it rounds, as fractions, in float64 (its areas are float32 sums)."""
    from tasks.segmentation import mmcv_lite

    mmcv_lite.install()
    from mmseg.evaluation import IoUMetric

    results = [IoUMetric.intersect_and_union(p, t, num_classes, ignore_index) for p, t in pairs]
    areas = [sum(column).double() for column in zip(*results, strict=True)]
    metrics = IoUMetric.total_area_to_metrics(*areas, metrics=["mIoU"])
    return {
        "mIoU": float(np.nanmean(metrics["IoU"])), "mAcc": float(np.nanmean(metrics["Acc"])),
        "aAcc": float(metrics["aAcc"]), "IoU": metrics["IoU"],
    }  # fmt: skip


def random_pair(seed, num_classes, size=(31, 45), used=None):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, used or num_classes, size).astype(np.uint8)
    prediction = np.where(rng.random(size) < 0.4, label, rng.integers(0, num_classes, size)).astype(np.uint8)
    label[rng.random(size) < 0.1] = 255
    return torch.from_numpy(prediction), torch.from_numpy(label)
