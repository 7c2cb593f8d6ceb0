"""Windows of resized pictures: the same pixels as of the whole, whatever the shape, in a few times its memory."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.classification import windows
from tasks.classification.preprocess import central_crop, evaluation_view, resize_small
from tasks.classification.windows import resize_area, resize_shorter, shorter_to

SIZES = st.integers(1, 90)


def picture(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@given(old=st.tuples(SIZES, SIZES), new=st.tuples(SIZES, SIZES), data=st.data())
@settings(max_examples=200, deadline=None)
def test_a_window_is_cut_from_the_whole(old, new, data) -> None:
    top, left = (data.draw(st.integers(0, n - 1)) for n in new)
    rows, columns = (data.draw(st.integers(1, n - at)) for n, at in zip(new, (top, left), strict=True))
    image = picture(*old)
    part = resize_area(image, *new, (top, left, rows, columns))
    assert torch.equal(part, resize_area(image, *new)[:, top : top + rows, left : left + columns])


@given(source=st.integers(1, 60), target=st.integers(1, 60))
@settings(max_examples=200, deadline=None)
def test_area_weights_are_those_of_the_dense_matrix(source: int, target: int) -> None:
    scale = source / target
    start = np.arange(target)[:, None] * scale
    low, high = np.maximum(start, np.arange(source)), np.minimum(start + scale, np.arange(source) + 1)
    dense = (np.clip(high - low, 0, None) / scale).astype(np.float32)
    weights, first, end = windows._area_weights(source, target, 0, target)
    assert np.array_equal(weights.toarray(), dense[:, first:end]) and not dense[:, :first].any()
    assert not dense[:, end:].any()


@pytest.mark.parametrize("size", [(1, 700), (700, 2), (5, 900), (40, 1500)])
def test_narrow_pictures_are_torchvision_s_to_a_level(size, monkeypatch) -> None:
    from torchvision.transforms.v2 import functional as V

    image, side = picture(*size), 40
    height, width = shorter_to(*size, side)
    window = ((height - 24) // 2, (width - 24) // 3, 24, 24)
    whole = V.resize(image, [side], antialias=True)
    assert whole.shape[1:] == (height, width)
    monkeypatch.setattr(windows, "WHOLE", 0)
    found = resize_shorter(image, side, window)
    expected = whole[:, window[0] : window[0] + 24, window[1] : window[1] + 24]
    assert (found.int() - expected.int()).abs().max() <= 1


def test_the_view_of_evaluation_is_the_middle_of_the_whole() -> None:
    for size in ((30, 47), (200, 8), (3, 400), (64, 64)):
        assert torch.equal(evaluation_view(picture(*size), 21, "big_vision"),
                           central_crop(resize_small(picture(*size), 24), 21))  # fmt: skip


MEASURE = """
import resource, sys, torch
from tasks.classification.preprocess import evaluation_view, training_view
height, width, style = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
small = torch.zeros(3, 60, 80, dtype=torch.uint8)
image = torch.zeros(3, height, width, dtype=torch.uint8)
for crop in ("inception", "resmall"):
    training_view(small, 240, style, crop, torch.Generator())
evaluation_view(small, 240, style)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
image.fill_(7)
evaluation_view(image, 240, style)
training_view(image, 240, style, "resmall", torch.Generator())
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / image.numel())
"""


SHAPES = [((2, 5_000_000), "big_vision"), ((2, 5_000_000), "torchvision")]
MORE = [((20_000_000, 2), "big_vision"), ((20_000_000, 2), "torchvision"), ((4000, 6000), "big_vision")]


@pytest.mark.parametrize("size, style", [*SHAPES, *(pytest.param(*one, marks=pytest.mark.slow) for one in MORE)])
def test_a_picture_of_any_shape_costs_at_most_ten_times_its_memory(size, style: str) -> None:
    arguments = [sys.executable, "-c", MEASURE, *map(str, size), style]
    told = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=120)
    assert float(told.stdout) < 10, told.stdout
