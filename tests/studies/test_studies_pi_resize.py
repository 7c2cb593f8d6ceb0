"""The resize ablation: PI-resize is exact on upsampled patches, area on constant pictures; settings are checked."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from conftest import relative
from PIL import Image
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torch.nn import functional as F

from backbones import FlexiBackbone, build_backbone
from backbones.encoder import HALF
from benchmarks.studies.pi_resize import Settings, published_rows, resize_images, resize_patchwise, whole_patches
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


@pytest.mark.parametrize("patch", [10, 13, 32])
def test_ordinary_vits_are_resized_as_timm_does_it(patch) -> None:
    """What the published table was made of: bicubic with antialias, pixels that no patch covers dropped."""
    torch.manual_seed(0)
    trunk = timm.create_model("vit_tiny_patch16_224", num_classes=7).eval()
    torch.nn.init.normal_(trunk.head.weight)
    side = 224 // patch
    other = timm.create_model("vit_tiny_patch16_224", num_classes=7, patch_size=patch, img_size=224).eval()
    state = trunk.state_dict()
    state["patch_embed.proj.weight"] = resample_patch_embed(state["patch_embed.proj.weight"], [patch, patch])
    state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], [side, side])
    other.load_state_dict(state)
    encoder = FlexiBackbone(trunk, HALF, filter="bicubic", position_filter="bicubic").eval()
    images = torch.randn(2, 3, 224, 224)
    covered, grid = whole_patches(images, patch)
    with torch.no_grad():
        assert grid == (side, side) and relative(encoder.head(encoder(covered, grid).pooled), other(images)) < 1e-4


def test_published_numbers_stand_beside_the_same_weights_and_filter_only() -> None:
    paper = read_settings("pi_resize", "paper")
    rows = {(r["mode"], r["patch"]): r["top1"] for r in published_rows(paper)}
    assert rows["alone", 8] == pytest.approx(0.7997) and rows["together", 8] == pytest.approx(0.7890)
    assert len(rows) == len(paper.alone) + len(paper.together)
    assert published_rows(read_settings("pi_resize", "paper", ["filter=bilinear"])) == []
    assert published_rows(Settings(filter="bicubic")) == []


def test_run_on_class_folders_with_patches_that_do_not_divide(tmp_path) -> None:
    rng = np.random.default_rng(0)
    for label in ("n1", "n2"):
        (tmp_path / "val" / label).mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (150, 200, 3), np.uint8)).save(tmp_path / "val" / label / "a.png")
    changes = ["alone=[7,15]", "together=[15]", "filter=bicubic", "crop=0.9", "pictures=2"]
    found = run_study("pi_resize", "demo", tmp_path, tmp_path / "out", "cpu", changes)
    assert found["pictures"] == 2 and {r["patch"] for r in found["rows"]} == {7, 15}
    with pytest.raises(ValueError, match="patch 121 is larger"):
        run_study("pi_resize", "demo", tmp_path, tmp_path / "out", "cpu", [*changes, "alone=[121]"])


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
        for scale in ("demo", "mini", "paper"):
            read_settings(study, scale)
    with pytest.raises(ValueError, match="no study 'pi_resise'; nearest: pi_resize"):
        read_settings("pi_resise")
    with pytest.raises(ValueError, match="nearest: mini"):
        read_settings("pi_resize", "minni")
    with pytest.raises(ValueError, match="'pictuers'; nearest: pictures"):
        read_settings("pi_resize", "mini", ["pictuers=3"])
    with pytest.raises(ValueError, match="expected int"):
        read_settings("pi_resize", "mini", ["pictures=many"])
