"""What users of timm expect of a ViT, against timm's own."""

import pickle

import pytest
import timm
import torch
from conftest import relative
from PIL import Image
from timm.data import resolve_data_config
from timm.optim import create_optimizer_v2, param_groups_layer_decay

from backbones import FlexiBackbone, build_backbone
from backbones.encoder import HALF

NAMES = [
    "vit_tiny_patch16_224",
    "vit_small_patch14_reg4_dinov2",
    "eva02_tiny_patch14_224",
    "deit_tiny_distilled_patch16_224",
]
IMAGES = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=NAMES)
def pair(request) -> tuple[torch.nn.Module, FlexiBackbone]:
    torch.manual_seed(0)
    trunk = timm.create_model(request.param, img_size=112, num_classes=3, depth=3).eval()
    torch.nn.init.normal_(trunk.head.weight)
    return trunk, FlexiBackbone(trunk, HALF).eval()


@torch.no_grad()
def test_features_and_intermediate_layers_are_timms(pair) -> None:
    trunk, encoder = pair
    assert relative(encoder.forward_features(IMAGES), trunk.forward_features(IMAGES)) < 1e-6
    assert relative(encoder.forward_head(encoder.forward_features(IMAGES)), trunk(IMAGES)) < 1e-6
    for options in ({}, {"norm": True}, {"indices": [0, -1]}, {"indices": 2, "output_fmt": "NLC"}):
        ours = encoder.forward_intermediates(IMAGES, **options)
        theirs = trunk.forward_intermediates(IMAGES, **options)
        assert relative(ours[0], theirs[0]) < 1e-6 and len(ours[1]) == len(theirs[1])
        assert all(relative(a, b) < 1e-6 for a, b in zip(ours[1], theirs[1], strict=True))
    if hasattr(trunk, "get_intermediate_layers"):
        kwargs = {"n": 2, "reshape": True, "return_prefix_tokens": True, "norm": True}
        ours, theirs = (m.get_intermediate_layers(IMAGES, **kwargs) for m in (encoder, trunk))
        assert all(relative(a, b) < 1e-6 for a, b in zip(ours, theirs, strict=True) for a, b in zip(a, b, strict=True))


@torch.no_grad()
def test_taps_at_another_grid(pair) -> None:
    _, encoder = pair
    features = encoder(IMAGES, 4, taps=(0, 2))
    assert list(features.taps) == [0, 2] and features.taps[0].shape == (2, 4, 4, encoder.embed_dim)
    last = encoder.trunk.norm(features.taps[2])
    assert relative(last, features.map) < 1e-6
    maps = encoder.get_intermediate_layers(IMAGES, [0, 2], reshape=True, grid=4)
    assert torch.equal(maps[0], features.taps[0].permute(0, 3, 1, 2))
    assert list(encoder(IMAGES, 4, taps=1).taps) == list(encoder(IMAGES, 4, taps=(-1,)).taps) == [2]
    with pytest.raises(IndexError, match="no block 3; the encoder has 3"):
        encoder(IMAGES, 4, taps=(3,))


def test_gradient_checkpointing_changes_no_gradient(pair) -> None:
    _, encoder = pair
    encoder.train()
    grads, calls = {}, []
    hook = encoder.trunk.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    for enable in (False, True):
        encoder.set_grad_checkpointing(enable)
        encoder.zero_grad()
        encoder(IMAGES, 4, taps=(0,)).pooled.sum().backward()
        grads[enable] = {n: p.grad.clone() for n, p in encoder.named_parameters() if p.grad is not None}
    hook.remove()
    encoder.set_grad_checkpointing(False)
    encoder.eval()
    assert len(calls) == 3  # once, and twice where it is computed again
    assert grads[False].keys() == grads[True].keys()
    assert all(torch.allclose(grads[False][n], grads[True][n], atol=1e-6) for n in grads[False])


def test_layer_decay_of_timm_sees_the_same_layers(pair) -> None:
    trunk, encoder = pair
    options = {"weight_decay": 0.05, "layer_decay": 0.5}

    def scales(model) -> dict[str, tuple[float, float]]:
        names = {id(p): n.removeprefix("trunk.") for n, p in model.named_parameters()}
        groups = param_groups_layer_decay(model, no_weight_decay_list=model.no_weight_decay(), **options)
        return {names[id(p)]: (g["lr_scale"], g["weight_decay"]) for g in groups for p in g["params"]}

    assert scales(encoder) == scales(trunk) and len({s for s, _ in scales(encoder).values()}) >= 4
    assert create_optimizer_v2(encoder, "adamw", lr=0.1, **options).param_groups


def test_data_config_and_preprocess() -> None:
    encoder = build_backbone("flexivit_nano").eval()
    config = resolve_data_config(model=encoder)
    assert config["input_size"] == (3, 120, 120) and config["mean"] == config["std"] == (0.5, 0.5, 0.5)
    assert config["interpolation"] == "bilinear" and abs(config["crop_pct"] - 240 / 272) < 1e-9
    picture = Image.new("L", (300, 200), 255)
    image = encoder.preprocess(picture)
    assert image.shape == (3, 120, 120) and torch.allclose(image, torch.ones(()))
    assert encoder.half().preprocess(picture).dtype == torch.float16
    dino = build_backbone("timm:vit_small_patch14_dinov2", pretrained=False)
    own = resolve_data_config(model=dino.trunk)
    assert resolve_data_config(model=dino) == own and own["interpolation"] == "bicubic"
    assert encoder.num_features == 128 and encoder.num_classes == 100


def test_a_distilled_deit_runs_at_any_grid_and_has_no_single_head() -> None:
    encoder = build_backbone("timm:deit_tiny_distilled_patch16_224", pretrained=False).eval()
    features = encoder(torch.randn(1, 3, 224, 224), 8)
    assert features.prefix.shape == (1, 2, 192) and features.cls is not None and encoder.head is None
    assert torch.allclose(features.pooled, features.prefix.mean(1))  # as timm's pre_logits
    new = build_backbone("timm:deit_tiny_distilled_patch16_224", pretrained=False, num_classes=0)
    assert new.head is None and pickle.loads(pickle.dumps(new)).embed_dim == 192


@pytest.mark.slow
def test_every_listed_model_of_timm_is_one_that_runs() -> None:
    from backbones import list_backbones

    failed = {}
    for name in list_backbones("timm:*"):
        try:
            with torch.device("meta"):
                encoder = build_backbone(name, pretrained=False, num_classes=0).eval()
                side = encoder.image_size
                grid = encoder.native_grid
                encoder(torch.empty(1, 3, *side), (grid[0] // 2 if grid[0] % 2 == 0 else grid[0], grid[1]))
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
    assert not failed
