"""Names, files and what goes wrong with them."""

import hashlib

import numpy as np
import pytest
import torch
from conftest import tiny_leaves

from backbones import BackboneSpec, backbone_spec, build_backbone, list_backbones, register_backbone
from backbones.contract import WeightsError
from backbones.weights.download import fetch
from backbones.weights.npz import npz_shape, read_npz
from backbones.weights.own import save_backbone
from backbones.zoo.files import build_from_safetensors


def test_published_names_are_listed() -> None:
    assert list_backbones("flexivit_?_i1k") == ["flexivit_b_i1k", "flexivit_l_i1k", "flexivit_s_i1k"]
    assert list_backbones("flexivit_b_i21k*") == [f"flexivit_b_i21k_{e}ep" for e in (1000, 300, 90)]
    assert backbone_spec("vit_b30_i21k").native_grid == 8 and backbone_spec("vit_b16_i21k").native_grid == 15
    assert backbone_spec("flexivit_b_i1k").weights.endswith("/flexivit_b_i1k.npz")
    assert "timm:vit_small_patch14_dinov2" in list_backbones("timm:*dinov2*")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("flexivit_b_i1", "nearest: flexivit_b_i1k"),
        ("timm:vit_smal_patch16_224", "nearest: vit_small_patch16_224"),
        ("no.such.module:thing", "cannot be imported"),
        ("missing.npz", "no weights file missing.npz"),
        ("missing.safetensors", "no weights file"),
    ],
)
def test_unknown_names_say_what_is_near(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_backbone(name)


def test_big_vision_architecture_is_read_from_shapes(tiny_npz) -> None:
    shape = npz_shape(read_npz(tiny_npz))
    assert (shape.width, shape.depth, shape.heads, shape.mlp) == (32, 2, 2, 128)
    assert (shape.patch, shape.positions, shape.pool, shape.classes) == ((32, 32), (7, 7), "token", 5)


def test_layouts_of_the_official_loader(tmp_path, tiny_npz) -> None:
    leaves = tiny_leaves()
    plain = build_backbone(str(tiny_npz)).state_dict()
    blocks = {k.split("/", 2)[2] for k in leaves if "encoderblock" in k}
    stacked = {k: v for k, v in leaves.items() if "encoderblock" not in k}
    for rest in blocks:
        stacked[f"Transformer/encoderblock/{rest}"] = np.stack(
            [leaves[f"Transformer/encoderblock_{i}/{rest}"] for i in (0, 1)]
        )
    variants = {
        "bare": leaves,
        "opt": {f"opt/target/{k}": v for k, v in leaves.items()},
        "stacked": {f"params/{k}": v for k, v in stacked.items()},
    }
    for name, variant in variants.items():
        np.savez(tmp_path / f"{name}.npz", **variant)
        state = build_backbone(str(tmp_path / f"{name}.npz")).state_dict()
        assert all(torch.equal(state[k], plain[k]) for k in plain), name
    np.savez(tmp_path / "two.npz", **{f"params/img/{k}": v for k, v in leaves.items()})
    assert torch.equal(
        build_backbone(f"{tmp_path / 'two.npz'}:img").base_kernel, plain["trunk.patch_embed.proj.weight"]
    )
    with pytest.raises(WeightsError, match="no submodel 'text'; it has: img"):
        build_backbone(f"{tmp_path / 'two.npz'}:text")


def test_bfloat16_and_a_class_position_are_understood(tmp_path) -> None:
    leaves = tiny_leaves()
    leaves["pos_embedding"] = np.concatenate([np.ones((1, 1, 32), np.float32), leaves["pos_embedding"]], 1)
    bits = (leaves["head/kernel"].view(np.uint32) >> 16).astype(np.uint16)
    leaves["head/kernel"] = bits.view(np.dtype("V2"))
    np.savez(tmp_path / "old.npz", **leaves)
    model = build_backbone(str(tmp_path / "old.npz"))
    assert model.trunk.pos_embed.shape == (1, 49, 32)
    assert torch.allclose(model.trunk.cls_token[0, 0], torch.from_numpy(leaves["cls"][0, 0]) + 1)
    assert torch.allclose(model.head.weight.T, torch.from_numpy(tiny_leaves()["head/kernel"]), rtol=1e-2)


def test_broken_files_tell_the_key_and_the_shape(tmp_path, tiny_npz) -> None:
    whole = tiny_npz.read_bytes()
    cut = tmp_path / "cut.npz"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="truncated"):
        build_backbone(str(cut))
    leaves = tiny_leaves()
    key = "Transformer/encoderblock_1/MlpBlock_0/Dense_0/kernel"
    np.savez(tmp_path / "wrong.npz", **{**leaves, key: np.zeros((32, 64), np.float32)})
    with pytest.raises(
        WeightsError, match=r"encoderblock_1/MlpBlock_0/Dense_0/kernel' has shape \(32, 64\), expected \(32, 128\)"
    ):
        build_backbone(str(tmp_path / "wrong.npz"))
    del leaves[key]
    np.savez(tmp_path / "missing.npz", **leaves)
    with pytest.raises(
        WeightsError, match=r"no key 'Transformer/encoderblock_1/MlpBlock_0/Dense_0/kernel', expected shape"
    ):
        build_backbone(str(tmp_path / "missing.npz"))
    np.savez(tmp_path / "foreign.npz", weights=np.zeros(3))
    with pytest.raises(WeightsError, match="no key 'embedding/kernel'"):
        build_backbone(str(tmp_path / "foreign.npz"))
    with pytest.raises(WeightsError, match="expected width 768.*found width 32"):
        build_backbone("flexivit_b_i1k", path=str(tiny_npz))


def test_no_network_says_where_to_put_the_file(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FLEXIVIT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(WeightsError, match="put it at .*cache/file.npz"):
        fetch("http://127.0.0.1:9/file.npz")
    assert not list((tmp_path / "cache").glob("*"))


def test_a_file_put_by_hand_is_used_and_checked(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FLEXIVIT_CACHE", str(tmp_path))
    (tmp_path / "file.npz").write_bytes(b"weights")
    right = hashlib.sha256(b"weights").hexdigest()
    assert fetch("http://127.0.0.1:9/file.npz", right) == tmp_path / "file.npz"
    with pytest.raises(WeightsError, match="checksum mismatch"):
        fetch("http://127.0.0.1:9/file.npz", "00")


def test_safetensors_round_trip(tmp_path, tiny_npz) -> None:
    model = build_backbone(str(tiny_npz)).eval()
    save_backbone(model, tmp_path / "m.safetensors", half=False)
    again = build_backbone(str(tmp_path / "m.safetensors")).eval()
    images = torch.randint(0, 256, (1, 3, 240, 240), dtype=torch.uint8)
    assert torch.equal(model(images, 8).pooled, again(images, 8).pooled)
    assert model.weights_hash() == again.weights_hash()
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "m.safetensors").read_bytes()[:500])
    with pytest.raises(WeightsError, match="truncated"):
        build_from_safetensors(str(tmp_path / "cut.safetensors"))


def test_registered_and_callable_backbones_build() -> None:
    built = build_backbone("test_registry:make", width=3)
    assert built.weight.shape == (3, 3)
    register_backbone(BackboneSpec("test_only", make))
    assert build_backbone("test_only", width=2).weight.shape == (2, 2)
    with pytest.raises(ValueError, match="already registered"):
        register_backbone(BackboneSpec("test_only", list))


def make(width: int) -> torch.nn.Module:
    return torch.nn.Linear(width, width)


def test_a_new_head_starts_at_zero(tiny_npz) -> None:
    model = build_backbone(str(tiny_npz), num_classes=9)
    assert model.head.weight.shape == (9, 32) and not model.head.weight.any()
    assert build_backbone(str(tiny_npz), num_classes=0).head is None
