"""What every backbone offers, also one that is nothing but a forward pass; views, costs, what flexible means."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.utils import _pytree

from backbones import Backbone, BackboneSpec, Encoder, Features, bound, build_backbone, register_backbone
from backbones.cost import counted_macs, macs
from backbones.encoder import completed
from tasks.contract.frozen import Frozen

IMAGES = torch.randint(0, 256, (2, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Plain(nn.Module):
    """What docs ask for: a forward pass and nothing else."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.project = nn.Linear(3, width)

    def forward(self, images, grid):
        cells = nn.functional.adaptive_avg_pool2d(images, grid).permute(0, 2, 3, 1)
        tokens = self.project(cells)
        return Features(tokens.mean((1, 2)), tokens)


class WithResize(Plain):
    def forward(self, images, grid, resize="pi"):
        features = super().forward(images, grid)
        return Features(features.pooled * (1 + (resize == "area")), features.map)


def test_a_plain_class_gets_every_default() -> None:
    encoder = build_backbone(f"{__name__}:Plain", width=5)
    assert isinstance(encoder, Backbone) and encoder.embed_dim == encoder.num_features == 5
    assert encoder.image_size == (240, 240) and encoder.native_grid == (15, 15) and encoder.flexible is None
    features = encoder(IMAGES, 4)
    assert features.pooled.shape == (2, 5) and features.map.shape == (2, 4, 4, 5)
    assert features.prefix.shape == (2, 0, 5) and features.cls is None and encoder.head is None
    assert torch.equal(encoder(encoder.normalise(IMAGES), 4).pooled, features.pooled)
    encoder.token_budget = 20
    assert [len(c) for c in encoder.chunks(IMAGES, 4)] == [1, 1]
    before = encoder.weights_hash()
    encoder.project.bias.data += 1  # what it has itself is reached through it
    assert encoder.weights_hash() != before


def test_a_view_is_bound_for_the_length_of_a_pass() -> None:
    for encoder in (build_backbone(f"{__name__}:WithResize"), build_backbone("flexivit_nano")):
        encoder = encoder.eval()
        images, grid = (IMAGES, 4) if encoder.embed_dim == 6 else (IMAGES.repeat(1, 1, 5, 5), 6)
        assert encoder.view_fields == {"resize"}
        own, area = encoder(images, grid).pooled, encoder(images, grid, resize="area").pooled
        holder = nn.Module()
        holder.backbone = Frozen(encoder)
        with torch.no_grad(), bound(holder, resize="area"):
            assert torch.equal(encoder(images, grid).pooled, area)
            assert torch.equal(encoder(images, grid, resize="pi").pooled, own)
            with bound(holder, resize="pi"):
                assert torch.equal(encoder(images, grid).pooled, own)
            assert torch.equal(encoder(images, grid).pooled, area)
        assert torch.equal(encoder(images, grid).pooled, own) and not torch.equal(own, area)
        with pytest.raises(ValueError, match="no resize method 'nearest'"), bound(holder, resize="nearest"):
            pass
        assert torch.equal(encoder(images, grid).pooled, own)


def test_a_plain_class_without_resize_says_that_it_is_indifferent() -> None:
    encoder = build_backbone(f"{__name__}:Plain")
    with encoder.bound(resize="area"):
        assert encoder.view_fields == frozenset() and encoder(IMAGES, 4).pooled.shape == (2, 6)


def test_a_model_without_backbone_is_left_alone() -> None:
    with bound(nn.Linear(2, 2), resize="area") as model:
        assert isinstance(model, nn.Linear)


def test_what_is_no_features_is_told() -> None:
    class Tuple(Plain):
        def forward(self, images, grid):
            return images, grid

    with pytest.raises(ValueError, match=r"no backbone \(images, grid\).*Tuple gives tuple, a backbone gives Features"):
        completed(Tuple(), 24)


@pytest.mark.parametrize("has_cls", [False, True])
def test_features_are_a_pytree(has_cls: bool) -> None:
    import backbones.encoder  # noqa: F401 - registers them

    some = torch.randn(2, 4)
    features = Features(some, torch.randn(2, 3, 3, 4), cls=some if has_cls else None, taps={1: torch.randn(2, 3, 3, 4)})
    half = _pytree.tree_map(torch.Tensor.half, features)
    assert isinstance(half, Features) and half.map.dtype == half.taps[1].dtype == torch.float16
    assert (half.cls is not None) == has_cls and torch.equal(half.prefix, features.prefix.half())
    leaves, spec = _pytree.tree_flatten(features)
    assert all(isinstance(leaf, torch.Tensor) for leaf in leaves) and len(leaves) == 4 + has_cls
    again = _pytree.tree_unflatten(leaves, spec)
    assert torch.equal(again.taps[1], features.taps[1])


def test_encoders_are_copied_and_pickled_without_what_they_keep() -> None:
    encoder = build_backbone("flexivit_nano").eval().requires_grad_(False)
    images = IMAGES.repeat(1, 1, 5, 5)
    expected = encoder(images, 5).pooled
    assert len(encoder._kept) == 1
    for other in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert len(other._kept) == 0 and torch.equal(other(images, 5).pooled, expected)


@pytest.mark.parametrize(
    ("name", "options"),
    [("flexivit_nano", {}), ("timm:vit_tiny_patch16_224", {"pretrained": False}), ("flexivit_nano_scratch", {})],
)
def test_cost_by_formula_is_what_torch_counts(name: str, options: dict) -> None:
    encoder = build_backbone(name, num_classes=0, **options)
    grid = 14 if "timm" in name else 8
    # the resize of kernel and positions is no part of an image's cost
    encoder.fixed_at_native_grid()
    assert counted_macs(encoder, grid) == macs(encoder, grid)


def test_cost_of_a_plain_class_is_counted_without_computing() -> None:
    calls = []

    class Watched(Plain):
        def forward(self, images, grid):
            calls.append(images.device.type)
            return super().forward(images, grid)

    encoder = completed(Watched(4), 24)
    calls.clear()
    assert macs(encoder, 6) == 36 * 3 * 4 and calls == ["meta"]
    assert encoder.training and next(encoder.parameters()).device.type == "cpu"


def test_flexible_is_told_by_spec_module_or_not_at_all() -> None:
    assert build_backbone("flexivit_nano").flexible is True and build_backbone("vit_nano_g8").flexible is False
    assert build_backbone("flexivit_nano", pretrained=False).flexible is None
    assert build_backbone("flexivit_nano_scratch").flexible is None
    register_backbone(BackboneSpec("fixed_by_name_of_flexi", Plain, 24, flexible=False))
    assert build_backbone("fixed_by_name_of_flexi").flexible is False

    class Told(Plain):
        flexible = True

    assert completed(Told(), 24).flexible is True


def test_a_subclass_of_encoder_needs_no_wrapper() -> None:
    class Own(Encoder):
        embed_dim = 3

        def forward(self, images, grid):
            tokens = nn.functional.adaptive_avg_pool2d(self.normalise(images), grid).permute(0, 2, 3, 1)
            return Features(tokens.mean((1, 2)), tokens)

    encoder = completed(own := Own(image_size=24))
    assert encoder is own and isinstance(encoder, Backbone) and encoder.native_grid == (2, 2)
    with pytest.raises(TypeError, match="nn.Module, not int"):
        completed(3)
