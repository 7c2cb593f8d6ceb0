"""Kernel and position resizing against float64, timm and algebra."""

import numpy as np
import pytest
import torch
from conftest import relative
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers.patch_embed import resample_patch_embed
from torch.nn import functional as F

from backbones.grids import METHODS
from backbones.resize import interpolation_matrix, resize_patch_kernel, resize_position_embedding

SIDES = st.integers(2, 20)


def image_resize(size: tuple[int, int], new: tuple[int, int]) -> torch.Tensor:
    """The whole two-dimensional resize as a float64 matrix [new, old], column by column."""
    basis = torch.eye(size[0] * size[1], dtype=torch.float64).reshape(-1, 1, *size)
    return F.interpolate(basis, size=new, mode="bilinear", align_corners=False).flatten(1).T


@settings(max_examples=30, deadline=None)
@given(SIDES, SIDES, SIDES, SIDES)
def test_pi_is_the_explicit_pseudo_inverse(h: int, w: int, ph: int, pw: int) -> None:
    kernel = torch.randn(3, 2, h, w, dtype=torch.float64)
    matrix = torch.linalg.pinv(image_resize((h, w), (ph, pw)).T, rtol=1e-9)
    expected = (kernel.flatten(2) @ matrix.T).unflatten(2, (ph, pw))
    assert relative(resize_patch_kernel(kernel, (ph, pw)), expected) < 1e-9


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 12), st.integers(0, 12))
def test_upsampled_image_times_resized_kernel_gives_the_same_tokens(h: int, w: int, up: int, right: int) -> None:
    patch, kernel = torch.randn(4, 3, h, w, dtype=torch.float64), torch.randn(5, 3, h, w, dtype=torch.float64)
    larger = F.interpolate(patch, size=(h + up, w + right), mode="bilinear", align_corners=False)
    tokens = torch.einsum("bchw,dchw->bd", patch, kernel)
    found = torch.einsum("bchw,dchw->bd", larger, resize_patch_kernel(kernel, (h + up, w + right)))
    assert torch.allclose(found, tokens, rtol=0, atol=1e-9 * float(tokens.abs().max() + 1))


@pytest.mark.parametrize("patch", [48, 40, 30, 24, 20, 16, 15, 12, 10, 8])
@pytest.mark.parametrize(("filter", "antialias"), [("bilinear", False), ("bicubic", True)])
def test_pi_equals_timm(patch: int, filter: str, antialias: bool) -> None:
    kernel = torch.randn(8, 3, 32, 32)
    expected = resample_patch_embed(kernel, [patch, patch], interpolation=filter, antialias=antialias)
    assert relative(resize_patch_kernel(kernel, patch, filter=filter), expected) < 2e-5


def test_kernels_equal_the_official_ones(golden) -> None:
    resampled, weights = np.load(golden / "resample.npz"), np.load(golden / "flexi_tiny_tok.npz")
    bases = {"32": weights["params/embedding/kernel"][..., :8], "8": resampled["in/8"]}
    names = [n for n in resampled.files if n.startswith("kernel/")]
    assert names
    for name in names:
        _, base, patch = name.split("/")
        kernel = torch.from_numpy(bases[base]).permute(3, 2, 0, 1)
        found = resize_patch_kernel(kernel, int(patch)).permute(2, 3, 1, 0)
        assert relative(found, resampled[name]) < 2e-5, name


def test_positions_equal_the_official_ones(golden) -> None:
    resampled, weights = np.load(golden / "resample.npz"), np.load(golden / "flexi_tiny_tok.npz")
    base = torch.from_numpy(weights["params/pos_embedding"]).reshape(7, 7, -1)
    names = [n for n in resampled.files if n.startswith("posemb/")]
    assert names
    for name in names:
        grid = tuple(map(int, name.split("/")[1].split("x")))
        found = resize_position_embedding(base, grid if len(grid) == 2 else grid[0])
        assert relative(found, resampled[name]) < 1e-6, name


def test_area_keeps_the_response_to_a_constant_picture() -> None:
    kernel = torch.ones(1, 1, 32, 32, dtype=torch.float64)
    for patch in (8, 16, 48):
        assert float(resize_patch_kernel(kernel, patch, "area").sum()) == pytest.approx(1024)
        assert float(resize_patch_kernel(kernel, patch, "bilinear").sum()) == pytest.approx(patch * patch)


@pytest.mark.parametrize("method", METHODS)
def test_resize_is_float32_under_autocast_and_differentiable(method: str) -> None:
    kernel = torch.randn(4, 3, 32, 32, requires_grad=True)
    plain = resize_patch_kernel(kernel, 20, method)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = resize_patch_kernel(kernel, 20, method)
    assert cast.dtype == torch.float32 and torch.equal(plain, cast)
    cast.square().sum().backward()
    assert kernel.grad is not None and float(kernel.grad.abs().sum()) > 0


def test_mixed_axes_stay_bounded() -> None:
    """One axis up, the other down: the official float32 SVD blows up to 2e8 here."""
    kernel = torch.randn(2, 3, 32, 32)
    assert float(resize_patch_kernel(kernel, (30, 48)).abs().max()) < 100


def test_interpolation_rows_sum_to_one() -> None:
    assert torch.allclose(interpolation_matrix(32, 20).sum(1), torch.ones(20, dtype=torch.float64))


def test_unknown_names_are_listed() -> None:
    with pytest.raises(ValueError, match="'fancy'.*pi, bilinear, area, norm"):
        resize_patch_kernel(torch.zeros(1, 3, 4, 4), 2, "fancy")
    with pytest.raises(ValueError, match="'lanczos'.*bilinear, bicubic"):
        resize_patch_kernel(torch.zeros(1, 3, 4, 4), 2, filter="lanczos")
    with pytest.raises(ValueError, match="at least 1"):
        resize_patch_kernel(torch.zeros(1, 3, 4, 4), 0)
