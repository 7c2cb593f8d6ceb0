"""CKA against a direct float64 computation and its invariances; the states of a backbone; the plane."""

import numpy as np
import pytest
import torch

from backbones import build_backbone
from benchmarks.studies.cka import MinibatchCKA, arc_cosine, classical_scaling
from benchmarks.studies.representations import align_tokens, compare, point_names, residual_stream


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def direct_hsic(x: np.ndarray, y: np.ndarray) -> float:
    """Song et al. 2012, equation 5, written out."""
    n = len(x)
    k, m = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    one = np.ones(n)
    total = np.trace(k @ m) + one @ k @ one * (one @ m @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * one @ k @ m @ one
    return float(total / (n * (n - 3)))


def cka(*features: torch.Tensor) -> torch.Tensor:
    found = MinibatchCKA(len(features))
    found.add(features)
    return found.matrix()


def test_one_batch_is_the_direct_computation() -> None:
    x, y = draw(40, 7) + 3, draw(40, 19, seed=1)
    y[:, :7] += 2 * x
    a, b = x.numpy(), y.numpy()
    expected = direct_hsic(a, b) / (direct_hsic(a, a) * direct_hsic(b, b)) ** 0.5
    assert abs(float(cka(x, y)[0, 1]) - expected) < 1e-12
    assert 0.2 < expected < 0.99


def test_batches_add_their_hsic() -> None:
    x, y = draw(60, 5), draw(60, 5, seed=1) + draw(60, 5)
    sums = MinibatchCKA(2)
    for part in range(3):
        sums.add([x[20 * part : 20 * part + 20], y[20 * part : 20 * part + 20]])
    parts = [(x[20 * i : 20 * i + 20].numpy(), y[20 * i : 20 * i + 20].numpy()) for i in range(3)]
    xy, xx, yy = (sum(direct_hsic(p[a], p[b]) for p in parts) for a, b in ((0, 1), (0, 0), (1, 1)))
    assert abs(float(sums.matrix()[0, 1]) - xy / (xx * yy) ** 0.5) < 1e-12


def test_invariant_to_rotation_scale_and_shift_but_not_to_any_map() -> None:
    x, y = draw(30, 6), draw(30, 9, seed=1)
    y[:, :6] += x
    rotation = torch.linalg.qr(draw(6, 6, seed=2))[0]
    base = float(cka(x, y)[0, 1])
    assert abs(float(cka(-7 * x @ rotation + 5, y)[0, 1]) - base) < 1e-12
    assert abs(float(cka(x * torch.arange(1, 7), y)[0, 1]) - base) > 1e-3
    assert abs(float(cka(x, x @ rotation)[0, 1]) - 1) < 1e-12


def test_unbiased_around_zero_for_independent_features() -> None:
    found = [float(cka(draw(12, 200, seed=2 * i), draw(12, 200, seed=2 * i + 1))[0, 1]) for i in range(200)]
    assert abs(np.mean(found)) < 4 * np.std(found) / len(found) ** 0.5 and min(found) < 0


def test_constant_features_are_undefined_and_small_batches_refused() -> None:
    assert cka(draw(1, 4).expand(20, 4), draw(20, 4))[0].isnan().all()
    with pytest.raises(ValueError, match="3 samples"):
        cka(draw(3, 4))


def test_classical_scaling_returns_the_points_up_to_motion() -> None:
    points = draw(9, 2)
    distance = torch.cdist(points, points)
    found = torch.from_numpy(classical_scaling(distance))
    torch.testing.assert_close(torch.cdist(found, found), distance, atol=1e-9, rtol=0)


def test_arc_cosine_is_zero_for_the_same_and_right_for_unrelated() -> None:
    found = arc_cosine(torch.tensor([[1.0, 0.0], [0.0, 1.0 + 1e-9]], dtype=torch.float64))
    assert found[0, 0] == found[1, 1] == 0 and abs(float(found[0, 1]) - np.pi / 2) < 1e-12


@pytest.mark.parametrize("name", ["vit_nano_g8", "timm"])
def test_states_are_those_of_the_forward_pass(name) -> None:
    if name == "timm":  # any ViT of timm: prefix tokens, LayerScale
        import timm

        from backbones import FlexiBackbone
        from backbones.encoder import HALF

        trunk = timm.create_model("vit_tiny_patch16_224", img_size=48, depth=2, init_values=1.0, reg_tokens=4)
        model = FlexiBackbone(trunk, HALF).eval()
    else:
        model = build_backbone(name).eval()
    images = torch.randint(0, 256, (2, 3, *model.image_size), dtype=torch.uint8)
    states = residual_stream(model, images, 3 if name == "timm" else 8)
    blocks = model.trunk.blocks
    assert len(states) == len(point_names(len(blocks))) == 2 * len(blocks) + 1
    with torch.no_grad():
        first = states[0] + blocks[0].ls1(blocks[0].attn(blocks[0].norm1(states[0])))
        torch.testing.assert_close(states[1], first)
        torch.testing.assert_close(states[2], blocks[0](states[0]))
        grid = 3 if name == "timm" else 8
        torch.testing.assert_close(model.trunk.norm(states[-1])[:, 0], model(images, grid).cls)
    assert not blocks[0]._forward_hooks and not blocks[0].norm2._forward_pre_hooks


def test_alignment_keeps_places() -> None:
    ramp = torch.arange(8.0).repeat(8, 1)[None, None] + 10 * torch.arange(8.0)[None, None, :, None]
    tokens = torch.cat([torch.full((1, 1, 1), 99.0), ramp.flatten(2).transpose(1, 2)], 1)
    assert torch.equal(align_tokens(tokens, 1, 8, 8).flatten(), ramp.flatten())
    small = align_tokens(tokens, 1, 8, 4).reshape(4, 4)
    assert torch.all(small.diff(dim=0) > 10) and torch.all(small.diff(dim=1) > 1)
    assert abs(float(small.mean() - ramp.mean())) < 1e-4


def test_a_grid_is_like_itself_and_less_like_another() -> None:
    model = build_backbone("flexivit_nano").eval()
    images = torch.rand(6, 3, 15, 15, generator=torch.Generator().manual_seed(0)) * 255
    found, seen = compare([model], [4, 8], [(images, torch.zeros(6))], 4, "cpu")
    assert seen == 6 and set(found) == {"patch tokens", "cls token"}
    patches, cls = found["patch tokens"], found["cls token"]
    assert patches.shape == (26, 26) and torch.allclose(patches.diagonal(), torch.ones(26).double())
    assert float(patches[:13, 13:].diagonal().max()) < 1 and float(patches[0, 13]) > 0.5
    assert cls[0].isnan().all() and not cls[1, 2].isnan()
