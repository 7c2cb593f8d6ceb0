"""The resize ablation: PI-resize is exact on upsampled patches, area on constant pictures; settings are checked."""

import json
import os
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from backbones import build_backbone
from benchmarks.studies.pi_resize import resize_images, resize_patchwise
from benchmarks.studies.settings import STUDIES, read_settings, run_study


@pytest.fixture(scope="module")
def fixed():
    return build_backbone("vit_nano_g8").fixed_at_native_grid().eval()


@pytest.fixture(scope="module")
def images(fixed):
    noise = torch.rand(4, 3, 30, 30, generator=torch.Generator().manual_seed(0)) * 255
    return fixed.normalise(F.interpolate(noise, size=(120, 120), mode="bilinear").to(torch.uint8))


@torch.no_grad()
def logits(model, images, grid=8, method="pi"):
    return model.head(model(images, grid, method).pooled)


def test_fixing_the_native_grid_changes_no_logit_there(images) -> None:
    whole = build_backbone("vit_nano_g8").eval()
    before = logits(whole, images)
    assert whole.fixed_at_native_grid().base_kernel.shape[-2:] == (15, 15)
    torch.testing.assert_close(logits(whole, images), before, atol=1e-5, rtol=0)


@pytest.mark.parametrize("patch", [20, 30, 45])
@pytest.mark.parametrize("filter", ["bilinear", "bicubic"])
def test_pi_kernel_on_upsampled_patches_changes_no_logit(images, patch, filter) -> None:
    model = build_backbone("vit_nano_g8", filter=filter).fixed_at_native_grid().eval()
    native = logits(model, images)
    bigger = resize_patchwise(images, (15, 15), (patch, patch), filter)
    assert bigger.shape == (4, 3, 8 * patch, 8 * patch)
    assert float((logits(model, bigger) - native).abs().max()) < 1e-4
    assert float((logits(model, bigger, method="bilinear") - native).abs().max()) > 1e-2


def test_area_factor_is_exact_on_a_constant_picture(fixed) -> None:
    small, big = (torch.full((1, 3, side, side), 0.7) for side in (120, 240))
    native = logits(fixed, small)
    # a kernel bilinearly doubled keeps its sum times four, which the area factor takes back
    assert float((logits(fixed, big, method="area") - native).abs().max()) < 1e-4
    assert float((logits(fixed, big, method="bilinear") - native).abs().max()) > 1e-2


def test_images_are_resized_as_torch_does(images) -> None:
    expected = F.interpolate(images, size=(200, 80), mode="bilinear", align_corners=False)
    torch.testing.assert_close(resize_images(images, (200, 80)), expected, atol=1e-5, rtol=0)


def test_patchwise_keeps_patches_apart(images) -> None:
    changed = images.clone()
    changed[:, :, :15, :15] += 1
    moved = resize_patchwise(changed, (15, 15), (30, 30)) - resize_patchwise(images, (15, 15), (30, 30))
    assert float(moved[:, :, :30, :30].min()) > 0.99
    assert float(moved[:, :, 30:].abs().max()) == 0 and float(moved[:, :, :, 30:].abs().max()) == 0


def test_run_on_real_pictures(tmp_path) -> None:
    folder = os.environ.get("FLEXIVIT_DATA")
    if not folder:
        pytest.skip("FLEXIVIT_DATA is not set: no real pictures at hand")
    changes = ["pictures=20", "together=[15,30]", "alone=[15,30]"]
    found = run_study("pi_resize", "demo", Path(folder) / "pretrain", tmp_path, "cpu", changes)
    assert json.loads((tmp_path / "result.json").read_text())["rows"] == found["rows"]
    assert found["patchwise_logit_difference"] < 1e-4
    by = {(r["mode"], r["patch"], r["method"]): r for r in found["rows"]}
    assert all(by[m, 15, k]["agreement"] == 1 for m in ("together", "alone") for k in ("pi", "area"))
    assert by["together", 30, "pi"]["agreement"] > by["together", 30, "bilinear"]["agreement"]
    assert (tmp_path / "pi_resize.png").exists() and "pi" in (tmp_path / "table.md").read_text()


def test_settings_name_the_nearest() -> None:
    for study in STUDIES:
        for scale in ("demo", "mini", *(["paper"] if study != "acceleration" else [])):  # that one is a suite
            read_settings(study, scale)
    with pytest.raises(ValueError, match="no study 'pi_resise'; nearest: pi_resize"):
        read_settings("pi_resise")
    with pytest.raises(ValueError, match="nearest: mini"):
        read_settings("pi_resize", "minni")
    with pytest.raises(ValueError, match="'pictuers'; nearest: pictures"):
        read_settings("pi_resize", "mini", ["pictuers=3"])
    with pytest.raises(ValueError, match="expected int"):
        read_settings("pi_resize", "mini", ["pictures=many"])
