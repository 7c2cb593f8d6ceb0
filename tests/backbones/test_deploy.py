"""One grid as a plain module: equal outputs in torch.export, ONNX Runtime, jit.trace and timm, any batch size."""

import json

import pytest
import timm
import torch
from conftest import relative
from torch import nn

from backbones import Features, FlexiBackbone, build_backbone
from backbones.deploy import deploy, deploy_model
from backbones.deploy.formats import ENDINGS, export_model, program
from backbones.deploy.opened import ExportedEncoder, open_exported
from backbones.encoder import HALF, completed
from tasks.classification.models import Locked

IMAGES = torch.randint(0, 256, (3, 3, 120, 120), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def nano() -> FlexiBackbone:
    return build_backbone("flexivit_nano").eval()


WAYS = [(form, grid) for grid in (4, 8, (6, 10)) for form in ("onnx", "torch", "timm")]
QUICK = (("torch", 4), ("timm", 8), ("onnx", (6, 10)))


@torch.no_grad()
@pytest.mark.parametrize("form, grid", [w if w in QUICK else pytest.param(*w, marks=pytest.mark.slow) for w in WAYS])
def test_every_format_gives_the_logits_of_the_backbone(nano, tmp_path, form: str, grid) -> None:
    expected = nano.head(nano(IMAGES, grid).pooled)
    made = deploy(nano, grid, classes=[f"class {i}" for i in range(100)], backbone="flexivit_nano")
    path = export_model(made, tmp_path / f"nano{ENDINGS[form]}", form)
    opened = open_exported(path)
    for count in (3, 1):
        assert relative(opened(IMAGES[:count])["logits"], expected[:count]) < 1e-5
    kept = opened.metadata
    assert kept["grid"] == list(grid if isinstance(grid, tuple) else (grid, grid)) and kept["image_size"] == [120, 120]
    assert kept["mean"] == [0.5, 0.5, 0.5] and kept["classes"][99] == "class 99" and kept["backbone"] == "flexivit_nano"


# one of each family: registers, pre-norm, attention pool, rotary positions of both kinds, distilled
FAMILIES = [
    "vit_small_patch14_reg4_dinov2", "vit_xsmall_patch16_clip_224", "vit_base_patch16_siglip_224",
    "vit_medium_patch16_gap_240", "eva02_tiny_patch14_224", "vit_small_patch16_dinov3",
    "deit_tiny_distilled_patch16_224",
]  # fmt: skip
USUAL = ("vit_small_patch14_reg4_dinov2", "vit_base_patch16_siglip_224", "eva02_tiny_patch14_224")


@torch.no_grad()
@pytest.mark.parametrize("name", [n if n in USUAL else pytest.param(n, marks=pytest.mark.slow) for n in FAMILIES])
def test_families_of_timm_are_exported(name: str, tmp_path) -> None:
    torch.manual_seed(0)
    side, depth = (112, 2)
    trunk = timm.create_model(name, img_size=side, num_classes=0, depth=depth).eval()
    encoder = FlexiBackbone(trunk, HALF).eval()
    images = torch.randn(2, 3, side, side)
    model = deploy(encoder, 8, outputs=("pooled", "map"), normalised=True)  # compares itself
    expected = encoder(images, 8)
    for run in (program(model).module(), torch.jit.trace(model, model.example(2))):
        pooled, grid_map = run(images)
        assert relative(pooled, expected.pooled) < 1e-5 and relative(grid_map, expected.map) < 1e-5
    again = timm.create_model(name, img_size=side, patch_size=14, num_classes=0, depth=depth).eval()
    missing = again.load_state_dict(model.encoder.trunk.state_dict(), strict=False)
    assert not missing.missing_keys and relative(again(images), expected.pooled) < 1e-5


@torch.no_grad()
def test_resize_method_and_image_size_are_baked(nano) -> None:
    large = torch.randint(0, 256, (1, 3, 160, 240), dtype=torch.uint8)
    model = deploy(nano, (10, 12), image_size=(160, 240), resize="area")
    assert relative(model(large), nano.head(nano(large, (10, 12), resize="area").pooled)) < 1e-5
    assert model.metadata["patch"] == [16, 20] and model.metadata["resize"] == "area"
    with pytest.raises(AssertionError, match="120"):
        model(IMAGES)
    nano.calibrate(IMAGES)
    assert relative(deploy(nano, 4, resize="norm")(IMAGES), nano.head(nano(IMAGES, 4, resize="norm").pooled)) < 1e-5
    nano.token_norm = None


@torch.no_grad()
def test_a_deployed_module_is_plain(nano) -> None:
    model = deploy(nano, 8, outputs=("logits", "pooled", "map", "prefix"))
    before = [v.clone() for v in nano.state_dict().values()]
    traced = torch.jit.trace(model, IMAGES)
    expected = nano(IMAGES, 8)
    for run in (model, traced):
        logits, pooled, grid_map, prefix = run(IMAGES[:2])
        assert relative(logits, nano.head(expected.pooled)[:2]) < 1e-5 and relative(pooled, expected.pooled[:2]) < 1e-5
        assert relative(grid_map, expected.map[:2]) < 1e-5 and relative(prefix, expected.prefix[:2]) < 1e-5
    assert not any(p.requires_grad for p in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, nano.state_dict().values(), strict=True))
    own = nn.Linear(128, 2)
    assert relative(deploy(nano, 8, head=own, classes=["a", "b"])(IMAGES), own(expected.pooled)) < 1e-5


@torch.no_grad()
def test_half_precision_and_an_exported_encoder(nano, tmp_path) -> None:
    import copy

    half = copy.deepcopy(nano).bfloat16()
    assert deploy(half, 8)(IMAGES).dtype == torch.bfloat16
    model = deploy(nano, 8, outputs=("pooled", "map", "prefix"))
    encoder = ExportedEncoder(open_exported(export_model(model, tmp_path / "e.pt2", "torch")))
    expected = nano(IMAGES, 8)
    assert relative(encoder(encoder.normalise(IMAGES), 8).map, expected.map) < 1e-5
    with pytest.raises(ValueError, match="runs at grid"):
        encoder(IMAGES, 4)


@torch.no_grad()
def test_a_whole_model_of_images_and_grid_is_deployed(nano, tmp_path) -> None:
    model = Locked(nano)
    made = deploy_model(model, (6, 8), output="vector")
    opened = open_exported(export_model(made, tmp_path / "locked.pt2", "torch"))
    assert relative(opened(IMAGES)["vector"], model(IMAGES, (6, 8))) < 1e-5 and model.backbone.module is nano
    with pytest.raises(ValueError, match="Linear holds no backbone"):
        deploy_model(nn.Linear(2, 2), 4)


class Plain(nn.Module):
    image_size, native_grid, embed_dim = 24, 4, 3

    def forward(self, images, grid):
        cells = nn.functional.avg_pool2d(images, (images.shape[-2] // grid[0], images.shape[-1] // grid[1]))
        cells = cells.permute(0, 2, 3, 1)
        return Features(cells.mean((1, 2)), cells)


@torch.no_grad()
def test_a_plain_backbone_is_deployed_as_it_is(tmp_path) -> None:
    encoder, images = completed(Plain()), IMAGES[:, :, :24, :24]
    model = deploy(encoder, 4)
    assert model.outputs == ("pooled",)
    opened = open_exported(export_model(model, tmp_path / "plain.onnx"))
    assert relative(opened(images)["pooled"], encoder(images, 4).pooled) < 1e-5
    with pytest.raises(ValueError, match="plain ViT only"):
        export_model(model, tmp_path / "plain", "timm")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": 7}, "grid 7 does not divide"),
        ({"grid": 8.5}, "neither a whole number nor a pair"),
        ({"grid": "8"}, "neither a whole number nor a pair"),
        ({"grid": (8.5, 8)}, "not of whole numbers"),
        ({"grid": (8, 7)}, "7 does not divide"),
        ({"grid": 8, "outputs": ["logit"]}, "no output 'logit'; there are: logits"),
        ({"grid": 8, "resize": "norm"}, "needs backbone.calibrate"),
        ({"grid": 8, "resize": "nearest"}, "no resize method"),
        ({"grid": 8, "classes": ["a"]}, "1 classes for 100 logits"),
    ],
)
def test_what_cannot_be_deployed_is_one_line(nano, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        deploy(nano, **options)
    assert "\n" not in str(error.value)
    assert not nano.training


@torch.no_grad()
@pytest.mark.parametrize("form", ["onnx", "torch"])
def test_images_that_a_file_does_not_take_are_one_line(nano, tmp_path, form: str) -> None:
    opened = open_exported(export_model(deploy(nano, (5, 12)), tmp_path / f"m{ENDINGS[form]}", form))
    for wrong in (IMAGES[0], IMAGES[..., :96], IMAGES.float()):
        with pytest.raises(ValueError, match=r"takes uint8 \[B, C, 120, 120\], not") as error:
            opened(wrong)
        assert "\n" not in str(error.value)


def test_files_that_are_no_exported_models(tmp_path, nano) -> None:
    (tmp_path / "torn.onnx").write_bytes(b"no graph")
    (tmp_path / "torn.pt2").write_bytes(b"no program")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.json").write_text(json.dumps({"architecture": "vit_tiny_patch16_224"}))
    for name in ("torn.onnx", "torn.pt2", "folder", "nowhere.onnx"):
        with pytest.raises(ValueError, match="no exported model") as error:
            open_exported(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="no format 'tflite'"):
        export_model(deploy(nano, 4), tmp_path / "m", "tflite")
