"""Laws of the training crops, beside their sources: TensorFlow's, transcribed, and torchvision's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import RandomResizedCrop

from tasks.classification.preprocess import inception_box, resized_crop_box

DRAWS = 4000


def tensorflow_box(height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """`sample_distorted_bounding_box_op.cc`, `GenerateRandomCrop` and its 100 attempts, line by line."""
    for _ in range(100):
        ratio = float(rng.random(dtype=np.float32)) * (1.33 - 0.75) + 0.75
        min_area, max_area = 0.05 * width * height, 1.0 * width * height
        crop_height = int(np.rint(np.sqrt(min_area / ratio)))
        max_height = int(np.rint(np.sqrt(max_area / ratio)))
        if np.rint(max_height * ratio) > width:
            max_height = int((width + 0.5 - 0.0000001) / ratio)
        max_height = min(max_height, height)
        crop_height = min(crop_height, max_height)
        if crop_height < max_height:
            crop_height += int(rng.integers(max_height - crop_height + 1))
        crop_width = int(np.rint(crop_height * ratio))
        if crop_width * crop_height < min_area:
            crop_height += 1
            crop_width = int(np.rint(crop_height * ratio))
        area = crop_width * crop_height
        if not min_area <= area <= max_area or not 0 < crop_width <= width or not 0 < crop_height <= height:
            continue
        y = int(rng.integers(height - crop_height)) if crop_height < height else 0
        x = int(rng.integers(width - crop_width)) if crop_width < width else 0
        return y, x, crop_height, crop_width
    return 0, 0, height, width


def quantities(boxes: np.ndarray, height: int, width: int) -> dict[str, np.ndarray]:
    top, left, h, w = boxes.T
    return {
        "area": h * w / (height * width),
        "aspect": w / h,
        "top": top / np.maximum(height - h, 1),
        "left": left / np.maximum(width - w, 1),
    }


def assert_same_law(ours: np.ndarray, theirs: np.ndarray, height: int, width: int) -> None:
    """All deciles within four standard errors, taken over the larger spread around the quantile."""
    for name, values in quantities(ours, height, width).items():
        other = quantities(theirs, height, width)[name]
        for q in np.arange(0.1, 0.95, 0.1):
            at, slack = np.quantile(other, q), 4 * np.sqrt(2 * q * (1 - q) / DRAWS)
            low, high = np.quantile(other, [max(q - slack, 0), min(q + slack, 1)])
            assert low - 1e-9 <= np.quantile(values, q) <= high + 1e-9, (name, q, np.quantile(values, q), at)


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 375), (64, 64), (60, 400)])
def test_inception_boxes_follow_tensorflows_law(height: int, width: int) -> None:
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(1)
    ours = np.array([inception_box(height, width, generator) for _ in range(DRAWS)])
    theirs = np.array([tensorflow_box(height, width, rng) for _ in range(DRAWS)])
    assert_same_law(ours, theirs, height, width)


def test_inception_boxes_are_small_more_often_than_under_a_uniform_area() -> None:
    generator = torch.Generator().manual_seed(0)
    areas = np.array([np.prod(inception_box(375, 500, generator)[2:]) / (375 * 500) for _ in range(DRAWS)])
    assert areas.mean() == pytest.approx(0.343, abs=0.01)
    assert (areas < 0.25).mean() == pytest.approx(0.42, abs=0.025)
    assert areas.min() >= 0.05


@pytest.mark.parametrize(("height", "width"), [(375, 500), (100, 500)])
def test_resized_crops_follow_torchvisions_law(height: int, width: int) -> None:
    torch.manual_seed(0)
    image, generator = torch.empty(3, height, width), torch.Generator().manual_seed(1)
    ours = np.array([resized_crop_box(height, width, generator) for _ in range(DRAWS)])
    theirs = np.array([RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(DRAWS)])
    assert_same_law(ours, theirs, height, width)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 900), (900, 1), (2, 3), (3000, 40)])
def test_a_box_lies_within_any_picture(height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for law in (inception_box, resized_crop_box):
        for _ in range(50):
            top, left, h, w = law(height, width, generator)
            assert min(top, left) >= 0 and min(h, w) > 0 and top + h <= height and left + w <= width
