"""Boxes follow pixels: a coloured rectangle is found where its box says, after every flip, crop, pad and mosaic."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contract import TaskError
from tasks.detection.labels.mosaics import (
    AREA,
    INSTANCES,
    Tile,
    at_most,
    augmented,
    crop,
    crop_window,
    flip,
    mosaic,
    padded,
)
from tasks.detection.labels.shares import SHARES, check_mosaics

GREY = 128


def g(seed=0):
    return torch.Generator().manual_seed(seed)


def marked(box, height=60, width=90, negatives=()):
    """A black picture with a red rectangle, and its box in pixels."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    x0, y0, x1, y1 = box
    image[0, y0:y1, x0:x1] = 255
    return Tile(image, torch.tensor([box]).float(), torch.tensor([7]), frozenset(negatives))


def red(image):
    """Where the red is: x0, y0, x1, y1 in pixels."""
    there = (image[0] > 190) & (image[1] < 64)
    rows, columns = there.any(1).nonzero()[:, 0], there.any(0).nonzero()[:, 0]
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(40, 120), st.integers(40, 120))
def test_boxes_follow_pixels(seed, height, width):
    h, w = height // 2, width // 3
    tile = marked((w // 2, h // 3, w // 2 + w, h // 3 + h), height, width)
    found = augmented(tile, 96, 0.5, g(seed))
    if len(found.boxes):
        # an enlarged pixel has no sharp edge: half of it on either side, and half of one of the result
        slack = max(1.5, 0.6 * 96 / min(height, width) + 0.5)
        assert torch.tensor(red(found.image)).sub(found.boxes[0] * 96).abs().max() <= slack
        assert found.boxes.min() >= 0 and found.boxes.max() <= 1


def test_flip_and_crop_are_exact():
    tile = marked((10, 20, 40, 50))
    assert flip(tile).boxes.tolist() == [red(flip(tile).image)] == [[50, 20, 80, 50]]
    assert torch.equal(flip(flip(tile)).boxes, tile.boxes)
    cut = crop(tile, (5, 15, 50, 60))
    assert cut.image.shape == (3, 50, 60) and cut.boxes.tolist() == [red(cut.image)] == [[0, 15, 25, 45]]


@pytest.mark.parametrize("left, stays", [(10, True), (21, True), (22, True), (23, False), (39, False), (45, False)])
def test_sixty_percent_must_be_left(left, stays):
    tile = marked((10, 20, 40, 50))  # 30 px wide: 12 may go
    assert len(crop(tile, (0, left, 60, 45)).boxes) == stays


def test_crop_windows_are_within_their_ranges():
    shares = []
    for seed in range(300):
        height, width = ((60, 90), (200, 100), (64, 64))[seed % 3]
        top, left, tall, wide = crop_window(height, width, g(seed))
        assert 0 <= top <= height - tall and 0 <= left <= width - wide
        shares.append(tall * wide / (height * width))
        assert AREA[0] <= shares[-1] <= AREA[1]
        assert tall * wide == height * width or 0.72 < wide / tall < 1.37
    assert min(shares) < 0.4 and max(shares) > 0.9
    assert crop_window(10, 400, g()) == (0, 0, 10, 400)  # no such shape fits


def test_grey_is_below_and_to_the_right():
    tall = padded(marked((0, 0, 60, 90), 90, 60), 30, 0.5)
    assert (tall.image[:, :, 20:] == GREY).all() and (tall.image[0, :, :20] == 255).all()
    assert torch.allclose(tall.boxes, torch.tensor([[0, 0, 2 / 3, 1]]))
    wide = padded(marked((0, 0, 90, 60)), 30, 0.5)
    assert (wide.image[:, 20:] == GREY).all() and (wide.image[0, :20] == 255).all()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_mosaics_place_tiles_row_by_row(count):
    side = 24
    tiles = [padded(marked((0, 0, 90, 60)), side, 0.5) for _ in range(count * count)]
    for place in range(count * count):
        dark = [t if i == place else Tile(t.image * 0, t.boxes, t.categories, frozenset()) for i, t in enumerate(tiles)]
        found = mosaic(dark)
        assert found.image.shape == (3, side * count, side * count)
        assert torch.allclose(found.boxes[place] * side * count, torch.tensor(red(found.image)).float(), atol=1e-3)


def test_what_one_tile_shows_is_no_negative_of_the_mosaic():
    tiles = [padded(marked((0, 0, 9, 9), negatives=n), 12, 0.5) for n in ((1, 2), (7, 3), (), (2,))]
    assert mosaic(tiles).negatives == {1, 2, 3}
    with pytest.raises(TaskError, match="3 tiles"):
        mosaic(tiles[:3])


def test_the_cut_spares_no_row_of_tiles():
    """A cut of the first hundred of 9 x 30 boxes would keep nothing below the first row and a third of the second."""
    many = Tile(
        torch.zeros(3, 24, 24, dtype=torch.uint8), torch.rand(30, 4), torch.arange(30), frozenset()
    )  # fmt: skip
    whole = mosaic([many] * 9)
    kept = at_most(whole, g())
    assert len(kept.boxes) == len(kept.categories) == INSTANCES
    rows = [int(((kept.boxes[:, 1] >= r / 3) & (kept.boxes[:, 1] < (r + 1) / 3)).sum()) for r in range(3)]
    assert min(rows) > 15 and sum(rows) == INSTANCES
    for box, category in zip(kept.boxes, kept.categories, strict=True):  # box and category stay together
        assert any(torch.equal(box, b) for b in whole.boxes[whole.categories == category])
    assert len(at_most(many, g()).boxes) == 30


def test_shares_and_sides_are_checked():
    check_mosaics(SHARES, 240), check_mosaics((1, 0, 0), 50)
    for shares in ((0.5, 0.5), (0.6, 0.6, -0.2), (0.1, 0.1, 0.1)):
        with pytest.raises(TaskError, match="three shares"):
            check_mosaics(shares, 240)
    with pytest.raises(TaskError, match="80 px is not divisible into 3x3"):
        check_mosaics(SHARES, 80)
    assert math.isclose(sum(SHARES), 1)
