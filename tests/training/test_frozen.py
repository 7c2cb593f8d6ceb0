"""Locked towers under bfloat16: half the memory, the same numbers to the bit."""

import copy

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from backbones import FlexiBackbone, build_backbone
from backbones.encoder import HALF
from tasks import Frozen
from tasks.classification.models import Classifier, Locked
from tasks.contract.frozen import keep_in_bfloat16


def pooled_by_attention() -> FlexiBackbone:
    trunk = VisionTransformer(
        img_size=56, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0, class_token=False,
        global_pool="map",
    )  # fmt: skip
    return FlexiBackbone(trunk, HALF)


@pytest.mark.parametrize("build", [lambda: build_backbone("flexivit_nano"), pooled_by_attention])
def test_features_are_the_same_to_the_bit(build) -> None:
    torch.manual_seed(0)
    encoder = build()
    grid = encoder.native_grid
    images = torch.randint(0, 256, (2, 3, *encoder.image_size), dtype=torch.uint8)
    model = Locked(encoder)
    with torch.autocast("cpu", torch.bfloat16):
        before = model(images, grid)
        saved = keep_in_bfloat16(model)
        assert torch.equal(model(images, grid), before)
    matrices = sum(m.weight.numel() for m in encoder.modules() if isinstance(m, torch.nn.Linear))
    assert saved >= 2 * matrices > encoder.embed_dim**2
    assert encoder.base_kernel.dtype == torch.float32 and keep_in_bfloat16(model) == 0


def test_what_is_trained_is_left_alone() -> None:
    model = Classifier(build_backbone("flexivit_nano"), 3)
    before = copy.deepcopy(model.state_dict())
    assert keep_in_bfloat16(model) == 0
    assert all(v.equal(before[k]) and v.dtype == before[k].dtype for k, v in model.state_dict().items())
    assert isinstance(Locked(build_backbone("flexivit_nano")).backbone, Frozen)
