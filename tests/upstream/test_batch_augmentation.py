"""Augmentation of whole batches: against torch's own crop and resize, torchvision's colours, and by its draws."""

import pytest
import torch
from data_tools import small_pictures
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as V

from backbones import build_backbone
from tasks import build_task
from tasks.contract import TaskError
from tasks.upstream.augmentation import crop_and_resize, draw_boxes, draw_factors, draw_mirrored, jitter_colours
from tasks.upstream.presets import PRESETS


def random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# from two pixels on: torch's antialiased resize is wrong on pictures one pixel wide
@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(2, 40))
def test_a_view_is_the_cut_picture_resized_by_torch(seed, height, width) -> None:
    images = torch.randint(0, 256, (3, 3, 23, 31), generator=random(seed), dtype=torch.uint8)
    boxes, mirrored = draw_boxes(3, 23, 31, (0.05, 1.0), random(seed)), draw_mirrored(3, random(seed))
    found = crop_and_resize(images, boxes, mirrored, (height, width))
    for image, (top, left, tall, wide), mirror, view in zip(images, boxes.tolist(), mirrored, found, strict=True):
        cut = image[None, :, top : top + tall, left : left + wide].float()
        expected = F.interpolate(cut, (height, width), mode="bilinear", align_corners=False, antialias=True)[0]
        assert torch.allclose(view, expected.flip(-1) if mirror else expected, atol=2e-3)


def test_boxes_lie_inside_and_have_the_area_asked_for() -> None:
    boxes = draw_boxes(4000, 64, 48, (0.25, 1.0), random(0))
    top, left, tall, wide = boxes.unbind(1)
    assert (boxes[:, :2] >= 0).all() and (top + tall <= 64).all() and (left + wide <= 48).all()
    share = (tall * wide).double() / (64 * 48)
    assert share.min() > 0.22 and share.max() <= 1 and 0.5 < share.mean() < 0.65
    assert (top == 0).any() and (top + tall == 64).any()


def test_colours_are_torchvision_s() -> None:
    image = torch.randint(40, 200, (1, 3, 16, 16), generator=random(0)).float()
    for light, contrast, colour in ((1.2, 1.0, 1.0), (1.0, 0.7, 1.0), (1.0, 1.0, 1.3)):
        found = jitter_colours(image, torch.tensor([[light, contrast, colour]])) / 255
        expected = V.adjust_saturation(V.adjust_contrast(V.adjust_brightness(image / 255, light), contrast), colour)
        assert torch.allclose(found, expected, atol=2e-3)
    assert torch.allclose(jitter_colours(image, draw_factors(1, 0.0, random(0))), image, atol=1e-3)


def test_options_of_batched_presets_are_refused_elsewhere() -> None:
    with pytest.raises(TaskError, match="one picture at a time"):
        build_task("upstream", options={"preset": "i21k_sup", "jitter": 0.1})
    with pytest.raises(TaskError, match="between 0 and 1"):
        build_task("upstream", options={"preset": "nano", "smallest_crop": 1.5})
    task = build_task("upstream", options={"preset": "nano", "smallest_crop": 0.5})
    assert task.area == (0.5, 1.0) and task.jitter == PRESETS["nano"].jitter


def test_views_are_a_function_of_the_step(tmp_path) -> None:
    small_pictures(tmp_path)
    task = build_task("upstream", tmp_path, {"preset": "nano", "data": "small/set", "image_size": 120})
    dataset = task.dataset("train")
    batch = task.collate([(i, *dataset.stored(i)) for i in range(4)])
    model = task.model(build_backbone("flexivit_nano", pretrained=False))
    first, again, other = (task.augment(model, batch, random(s)) for s in (1, 1, 2))
    assert torch.equal(first.images, again.images) and not torch.equal(first.images, other.images)
    assert first.images.shape == (4, 3, 120, 120) and first.targets["label"].shape == (4, task.classes)
    assert abs(float(first.images.mean())) < 1 and torch.isfinite(task.loss(model, first, (4, 4))["loss"])
