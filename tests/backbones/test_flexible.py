"""The encoder against official values, timm's own forward, and its invariants."""

import contextlib
import copy

import numpy as np
import pytest
import timm
import torch
from conftest import relative
from timm.models.vision_transformer import VisionTransformer

from backbones import Features, FlexiBackbone, build_backbone
from backbones.contract import Normalisation
from backbones.kernels import ResizedKernels
from backbones.resize import pseudo_inverse
from backbones.zoo.files import build_from_npz

PIXELS = torch.randint(0, 256, (2, 3, 240, 240), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def tiny(tiny_npz) -> FlexiBackbone:
    return build_from_npz(str(tiny_npz)).eval()


@pytest.fixture(scope="session")
def official(golden):
    model = build_backbone(str(golden / "flexi_tiny_tok.npz")).eval()
    return model, np.load(golden / "forward.npz")


def test_logits_equal_the_official_ones(official) -> None:
    model, values = official
    images = torch.from_numpy(values["images_u8"]).permute(0, 3, 1, 2)
    for grid in (5, 8, 15, 30):
        features = model(images, grid)
        assert relative(features.pooled, values[f"tok/{grid}/pre_logits"]) < 2e-5
        assert relative(model.head(features.pooled), values[f"tok/{grid}/logits"]) < 2e-5
    assert (
        relative(torch.cat([model(images, 5).prefix, model(images, 5).map.flatten(1, 2)], 1), values["tok/5/encoded"])
        < 2e-5
    )
    assert relative(model.head(model(images, 5).map), values["tok/5/logits_2d"]) < 2e-5


def test_gradients_equal_the_official_ones(official) -> None:
    model, values = official
    model = copy.deepcopy(model)
    images = torch.from_numpy(values["images_u8"]).permute(0, 3, 1, 2)
    pooled = model(images, 10).pooled
    # the stored loss is sum(logits * coef); the head's gradient is pooled^T coef, which gives coef back exactly
    gradient = torch.from_numpy(values["grad/10/head/kernel"]).double()
    coef = (torch.linalg.pinv(pooled.detach().double().T) @ gradient).float()
    (model.head(pooled) * coef).sum().backward()
    trunk = model.trunk
    found = {
        "embedding/kernel[...,:8]": trunk.patch_embed.proj.weight.grad[:8].permute(2, 3, 1, 0),
        "pos_embedding": trunk.pos_embed.grad,
        "cls": trunk.cls_token.grad,
        "head/kernel": trunk.head.weight.grad.T,
    }
    for name, gradient in found.items():
        assert relative(gradient, values[f"grad/10/{name}"]) < 5e-5, name
    total = sum(float(p.grad.double().square().sum()) for p in model.parameters() if p.grad is not None) ** 0.5
    assert total == pytest.approx(float(values["grad/10/l2_all"]), rel=1e-5)


@pytest.mark.parametrize("pool", ["gap", "map"])
def test_other_pools_equal_the_official_ones(golden, tmp_path, pool: str) -> None:
    leaves, values = dict(np.load(golden / "flexi_tiny_tok.npz")), np.load(golden / "forward.npz")
    del leaves["params/cls"]
    if pool == "map":
        leaves |= dict(np.load(golden / "flexi_tiny_maphead.npz"))
    np.savez(tmp_path / "pool.npz", **leaves)
    model = build_backbone(str(tmp_path / "pool.npz")).eval()
    images = torch.from_numpy(values["images_u8"]).permute(0, 3, 1, 2)
    features = model(images, 15)
    assert relative(features.pooled, values[f"{pool}/15/pre_logits"]) < 2e-5
    assert relative(model.head(features.pooled), values[f"{pool}/15/logits"]) < 2e-5
    assert features.cls is None and features.prefix.shape[1] == 0


# one of each family: FlexiViT, registers (DINOv2), pre-norm (CLIP), attention pool (SigLIP), DeiT III, avg pool with
# fc_norm, Eva with rotary positions (EVA-02, DINOv3)
FAMILIES = [
    "flexivit_small", "vit_small_patch14_reg4_dinov2", "vit_xsmall_patch16_clip_224", "deit3_small_patch16_224",
    "vit_tiny_patch16_224", "vit_medium_patch16_gap_240", "eva02_tiny_patch14_224", "vit_small_patch16_dinov3",
]  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_native_grid_is_timms_own_forward(name: str) -> None:
    keywords = {"img_size": 112} if "dinov2" in name else {}
    torch.manual_seed(0)
    trunk = timm.create_model(name, pretrained=False, num_classes=7, depth=2, **keywords).eval()
    encoder = FlexiBackbone(trunk, Normalisation((0.5,) * 3, (0.5,) * 3)).eval()
    images = torch.randn(2, 3, *encoder.image_size)
    with torch.no_grad():
        features = encoder(images, encoder.native_grid)
        assert relative(encoder.head(features.pooled), trunk(images)) < 1e-6
        tokens = trunk.forward_features(images)
        assert relative(features.map.flatten(1, 2), tokens[:, trunk.num_prefix_tokens :]) < 1e-6
        other = encoder(images, 8 if images.shape[-1] % 8 == 0 else 14)  # and it runs at another grid
        assert torch.isfinite(other.pooled).all()


def test_map_pool_of_siglip_is_timms_own() -> None:
    trunk = VisionTransformer(64, 16, embed_dim=32, depth=1, num_heads=2, class_token=False, global_pool="map").eval()
    encoder, images = FlexiBackbone(trunk, Normalisation((0.5,) * 3, (0.5,) * 3)).eval(), torch.randn(2, 3, 64, 64)
    assert torch.equal(encoder.head(encoder(images, 4).pooled), trunk(images))


def test_same_grid_twice_and_any_order_are_bit_identical(tiny) -> None:
    with torch.no_grad():
        first = {g: tiny(PIXELS, g).pooled for g in (5, 8, 15)}
        for grid in (15, 5, 8, 5):
            assert torch.equal(tiny(PIXELS, grid).pooled, first[grid])


def test_cached_equals_uncached_and_state_is_unchanged(tiny) -> None:
    before = {k: v.clone() for k, v in tiny.state_dict().items()}
    with_grad = tiny(PIXELS, 8).pooled
    with torch.inference_mode():
        cached = tiny(PIXELS, 8).pooled.clone()
    assert torch.equal(with_grad, cached) and len(tiny._kept)
    after = tiny.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)


def _fused_step(model: FlexiBackbone) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()


def _through_numpy(model: FlexiBackbone) -> None:
    model.base_kernel.detach().numpy()[0, 0, 0, 0] += 1


def _swap(model: FlexiBackbone) -> None:
    model.base_kernel.data.copy_(model.base_kernel.data.flip(0, 1, 2, 3))  # the same numbers in other places


CHANGES = {
    "fused step": _fused_step,
    "in place": lambda m: m.base_kernel.mul_(2),
    "load": lambda m: m.load_state_dict({k: v * 2 for k, v in m.state_dict().items()}),
    "double": lambda m: m.double(),
    "data zeroed": lambda m: m.base_kernel.data.zero_(),
    "data replaced": lambda m: setattr(m.base_kernel, "data", m.base_kernel.data * 2),
    "positions through data": lambda m: m.trunk.pos_embed.data.mul_(2),
    "one value through data": _through_numpy,
    "swapped through data": _swap,
    "other parameter": lambda m: setattr(m.trunk.patch_embed.proj, "weight", torch.nn.Parameter(m.base_kernel * 2)),
    "NaN": lambda m: m.base_kernel.data.fill_(float("nan")),
}


@pytest.mark.parametrize("bind", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_are_seen_in_evaluation(tiny, change: str, bind: bool) -> None:
    tiny.requires_grad_(change == "fused step")
    with torch.no_grad(), tiny.bound() if bind else contextlib.nullcontext():
        old = tiny(PIXELS, 8).pooled
        assert torch.equal(tiny(PIXELS, 8).pooled, old) and len(tiny._kept) == 1
        CHANGES[change](tiny)
        new, fresh = tiny(PIXELS, 8).pooled, copy.deepcopy(tiny)(PIXELS, 8).pooled
    assert torch.equal(new.nan_to_num(), fresh.nan_to_num()) and new.dtype == tiny.dtype
    assert change == "double" or not torch.equal(new, old)


def test_weights_made_in_inference_mode_are_kept_and_watched(tiny_npz) -> None:
    with torch.inference_mode():
        model = build_from_npz(str(tiny_npz)).eval()
        old = model(PIXELS, 8).pooled
        model(PIXELS, 8)
        assert len(model._kept) == 1
        model.base_kernel.mul_(2)
        assert not torch.equal(model(PIXELS, 8).pooled, old)


def test_a_cached_call_makes_nothing(tiny, monkeypatch) -> None:
    made = []
    resized = tiny.resized
    monkeypatch.setattr(tiny, "resized", lambda *a: made.append(a) or resized(*a))
    with torch.no_grad():
        for grid in (8, 5, 8, 5, 8):
            tiny(PIXELS, grid)
    assert len(made) == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_uint8_input_in_every_precision(tiny, dtype: torch.dtype) -> None:
    with torch.no_grad():
        expected = tiny(PIXELS, 8)
        features = tiny.to(dtype)(PIXELS, 8)
        logits = tiny.head(features.pooled)
    assert features.pooled.dtype == features.map.dtype == logits.dtype == dtype
    error = {torch.float16: 1e-2, torch.bfloat16: 6e-2, torch.float64: 1e-5}[dtype]
    assert relative(features.pooled, expected.pooled) < error
    tiny.float()  # a mean that was rounded on the way would darken the input
    with torch.no_grad():
        assert relative(tiny.normalise(PIXELS), PIXELS.float() / 127.5 - 1) < 1e-6


def test_pi_kernel_on_an_upsampled_image_changes_no_logit(tiny) -> None:
    images = torch.randn(2, 3, 160, 160)
    patches = images.unfold(2, 32, 32).unfold(3, 32, 32)  # each patch upsampled on its own: no neighbours bleed in
    larger = torch.nn.functional.interpolate(
        patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 32, 32), size=48, mode="bilinear", align_corners=False
    )
    larger = larger.reshape(2, 5, 5, 3, 48, 48).permute(0, 3, 1, 4, 2, 5).reshape(2, 3, 240, 240)
    assert relative(tiny.head(tiny(larger, 5).pooled), tiny.head(tiny(images, 5).pooled)) < 1e-4


def test_rectangular_images_and_grids(tiny) -> None:
    features = tiny(PIXELS[:, :, :192], grid=(24, 5))  # patch 8 x 48: one axis down, one up
    assert features.map.shape == (2, 24, 5, 32) and torch.isfinite(features.pooled).all()
    assert float(features.pooled.detach().abs().max()) < 1e3


def test_uint8_equals_normalised_float(tiny) -> None:
    with torch.no_grad():
        float_input = PIXELS.float() / 255 * 2 - 1
        assert relative(tiny(PIXELS, 8).pooled, tiny(float_input, 8).pooled) < 1e-5


def test_norm_method_needs_calibration_and_gives_one_norm(tiny) -> None:
    with pytest.raises(ValueError, match="calibrate"):
        tiny(PIXELS, 8, resize="norm")
    norm = tiny.calibrate(PIXELS)
    seen = {}
    tiny.trunk.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.update(x=inputs[0]))
    with torch.no_grad():
        tiny(PIXELS, 8, resize="norm")
        _, positions = tiny.resized((30, 30), (8, 8), "norm")
    assert torch.allclose((seen["x"][:, 1:] - positions).norm(dim=-1), torch.tensor(norm), rtol=1e-4)


def test_autocast_leaves_the_resize_alone(tiny) -> None:
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        tiny(PIXELS, 8)
    kernel, positions = next(iter(tiny._kept._made.values()))
    assert kernel.dtype == positions.dtype == torch.float32


def test_chunks_keep_the_token_budget(tiny) -> None:
    tiny.token_budget = 100
    assert [len(c) for c in tiny.chunks(PIXELS.repeat(3, 1, 1, 1), 6)] == [2, 2, 2]
    assert [len(c) for c in tiny.chunks(PIXELS, 30)] == [1, 1]


@pytest.mark.parametrize(
    ("images", "grid", "message"),
    [
        (PIXELS, 7, "grid 7 does not divide.*5, 6, 8"),
        (PIXELS[0], 8, r"\[B, 3, H, W\]"),
        (PIXELS.int(), 8, "uint8"),
    ],
)
def test_bad_input_is_one_line(tiny, images, grid, message) -> None:
    with pytest.raises(ValueError, match=message) as error:
        tiny(images, grid)
    assert "\n" not in str(error.value)


def test_a_compiled_step_is_one_graph_and_inverts_nothing() -> None:
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    model = build_backbone("flexivit_nano").train()
    images = torch.rand(1, 3, 120, 120)
    compiled = torch.compile(lambda x, grid: model(x, grid).pooled, backend=backend, fullgraph=True, dynamic=False)
    for grid in (4, 6):
        assert torch.equal(compiled(images, grid), model(images, grid).pooled)
    names = [str(node.target) for graph in graphs for node in graph.graph.nodes]
    assert len(graphs) == 2 and any("conv2d" in n for n in names) and not any("pinv" in n for n in names)


def test_elsewhere_than_on_a_cpu_values_are_kept_while_a_view_is_bound() -> None:
    base, made = torch.nn.Parameter(torch.empty(2, 3, device="meta")), []
    kept = ResizedKernels()

    def get(frozen: bool) -> int:
        kept.get("grid", [base], lambda: made.append(1) or (base, None), frozen)
        return len(made)

    with torch.no_grad():
        assert [get(False), get(False)] == [1, 2] and len(kept) == 0
        assert [get(True), get(True)] == [3, 3]
        base.mul_(2)
        assert [get(True), get(True)] == [4, 4]
        torch.optim.SGD([base], lr=0.1).step()
        assert [get(True), get(True)] == [5, 5]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("bind", [False, True])
def test_a_gpu_gives_what_a_cpu_gives(tiny, bind: bool) -> None:
    with torch.no_grad():
        expected = tiny(PIXELS, 8).pooled
        other = copy.deepcopy(tiny).cuda()
        with other.bound() if bind else contextlib.nullcontext():
            for _ in range(2):
                assert relative(other(PIXELS.cuda(), 8).pooled.cpu(), expected) < 1e-3
        other.base_kernel.data.zero_()
        with other.bound() if bind else contextlib.nullcontext():
            assert relative(other(PIXELS.cuda(), 8).pooled.cpu(), expected) > 1e-2


def test_the_meta_device_tells_shapes_without_values() -> None:
    with torch.device("meta"):
        model = build_backbone("flexivit_l_i1k", pretrained=False).eval()
        features = model(torch.empty(2, 3, 240, 240, dtype=torch.uint8), (8, 10))
    assert features.map.shape == (2, 8, 10, 1024) and features.map.is_meta and len(model._kept) == 0
    nano = build_backbone("flexivit_nano").eval()
    expected, state = nano(PIXELS[:, :, ::2, ::2], 8).pooled, nano.state_dict()
    empty = copy.deepcopy(nano).to("meta").to_empty(device="cpu")
    empty.load_state_dict(state)
    assert torch.equal(empty(PIXELS[:, :, ::2, ::2], 8).pooled, expected)


def test_a_picture_that_a_patch_does_not_divide_is_read_as_far_as_the_patches_go() -> None:
    trunk = VisionTransformer(30, 7, embed_dim=16, depth=1, num_heads=2, num_classes=3).eval()
    encoder, images = FlexiBackbone(trunk, Normalisation((0.5,) * 3, (0.5,) * 3)).eval(), torch.randn(1, 3, 30, 30)
    assert encoder.image_size == (28, 28) and encoder.native_grid == (4, 4)
    assert relative(encoder.head(encoder(images[:, :, :28, :28], 4).pooled), trunk(images)) < 1e-6


def test_evaluation_compiles_as_one_graph_at_any_grid() -> None:
    model = build_backbone("flexivit_nano").eval()
    images = PIXELS[:, :, ::2, ::2]
    compiled = torch.compile(lambda x, grid: model(x, grid).map, backend="eager", fullgraph=True, dynamic=False)
    with torch.no_grad():
        for grid in (4, 6):
            assert relative(compiled(images, grid), model(images, grid).map) < 1e-6
        with model.bound(resize="area"):
            assert relative(compiled(images, 6), model(images, 6).map) < 1e-6
        model.base_kernel.data.mul_(2)
        assert relative(compiled(images, 6), model(images, 6).map) < 1e-6
    whole = torch.compile(model, backend="eager", fullgraph=True, dynamic=False)
    with torch.no_grad():
        assert (
            isinstance(whole(images, 8), Features) and relative(whole(images, 8).pooled, model(images, 8).pooled) < 1e-6
        )


def test_an_encoder_is_exported_as_it_is() -> None:
    model = build_backbone("flexivit_nano").eval()
    images, batch = PIXELS[:, :, ::2, ::2], torch.export.Dim("batch", min=1)
    program = torch.export.export(model, (images, 8), dynamic_shapes=({0: batch}, None)).module()
    with torch.no_grad():
        for count in (1, 2):
            assert relative(program(images[:count], 8).map, model(images[:count], 8).map) < 1e-6


@torch.no_grad()
def test_a_fixed_model_forgets_what_one_grid_never_determined() -> None:
    images = PIXELS[..., :120, :120]
    free, fixed = build_backbone("vit_nano_g8").eval(), build_backbone("vit_nano_g8", fixed=True).eval()
    assert fixed.base_kernel.shape[-2:] == (15, 15) and fixed.position_grid == (8, 8)
    assert relative(fixed.tokens(images, 8), free.tokens(images, 8)) < 1e-5
    # noise in the part of the buffer that PI-resize to 15 px does not read changes nothing at 8, but all at 10
    noise = torch.randn(32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    down = pseudo_inverse(32, 15)
    unread = torch.eye(32, dtype=torch.float64) - torch.linalg.pinv(down) @ down
    before = {grid: free.tokens(images, grid) for grid in (8, 10)}
    free.base_kernel.add_((unread @ noise @ unread.T).float())
    assert relative(free.tokens(images, 8), before[8]) < 1e-4
    assert relative(free.tokens(images, 10), before[10]) > 0.1
