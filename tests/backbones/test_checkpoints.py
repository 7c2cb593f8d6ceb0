"""State dicts of any origin become the same encoder, or a line that says why not."""

import argparse
import json
import pickle
import zipfile

import numpy as np
import pytest
import timm
import torch
from conftest import relative, tiny_leaves
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from backbones import WeightsError, availability, build_backbone

SIZES = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 1, "num_classes": 5}
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def trunk(**more) -> VisionTransformer:
    torch.manual_seed(0)
    made = VisionTransformer(**{**SIZES, **more}).eval()
    for value in made.parameters():
        torch.nn.init.normal_(value, std=0.1)
    return made


KINDS = {
    "plain": {},
    "registers": {"reg_tokens": 3},
    "registers without positions": {"reg_tokens": 3, "no_embed_class": True},
    "layer scale": {"init_values": 1e-2},
    "query and key norm": {"qk_norm": True},
    "pre norm": {"pre_norm": True},
    "average pool": {"global_pool": "avg", "class_token": False, "fc_norm": False},
    "average pool, norm after": {"global_pool": "avg", "class_token": True},
    "attention pool": {"global_pool": "map", "class_token": False},
    "no bias of queries": {"qkv_bias": False},
    "no head": {"num_classes": 0},
    "SwiGLU": {"mlp_layer": timm.layers.SwiGLU, "act_layer": "silu"},
    "packed SwiGLU": {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": "silu"},
    "large positions": {"img_size": 64},
}


@pytest.mark.parametrize("kind", KINDS)
def test_architecture_is_read_from_shapes(tmp_path, kind: str) -> None:
    model = trunk(**KINDS[kind])
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    encoder = build_backbone(str(tmp_path / "model.safetensors")).eval()
    images = IMAGES if "large" not in kind else torch.randn(1, 3, 64, 64)
    features = encoder(images, images.shape[-1] // 8)
    expected = model(images)
    assert relative(features.pooled if "no head" in kind else encoder.head(features.pooled), expected) < 1e-6
    assert encoder.image_size == tuple(images.shape[-2:])


def _checkpoint(tmp_path, kind: str, state: dict):
    """A file as training scripts write it."""
    if kind == "safetensors":
        save_file(state, tmp_path / "m.safetensors")
        return tmp_path / "m.safetensors"
    wrapped = {
        "plain.pth": state,
        "timm.pth.tar": {"state_dict": state, "epoch": 3, "args": argparse.Namespace(lr=0.1), "arch": "vit"},
        "averaged.pth": {"state_dict": {k: v * 0 for k, v in state.items()}, "state_dict_ema": state},
        "parallel.bin": {f"module.{k}": v for k, v in state.items()},
        "lightning.ckpt": {
            "state_dict": {f"model.backbone.{k}": v for k, v in state.items()} | {"model.fc.weight": torch.ones(3, 3)},
            "epoch": np.float64(2.0), "callbacks": {"best": [np.float32(3.0), np.int32(4), np.bool_(True)]},
            "optimizer_states": [{"state": {}}],
        },
        "compiled.pt": {"model": {f"_orig_mod.{k}": v for k, v in state.items()}},
        "own name.pth": {"network": {"state_dict": state}, "epoch": 3},
        "ours.pt": {"model": {f"backbone.trunk.{k}": v for k, v in state.items()}, "step": 4},
        "half.pth": {k: v.half() for k, v in state.items()},
    }[kind]  # fmt: skip
    torch.save(wrapped, tmp_path / kind)
    return tmp_path / kind


@pytest.mark.parametrize(
    "kind",
    [
        "safetensors", "own name.pth", "plain.pth", "timm.pth.tar", "averaged.pth", "parallel.bin", "lightning.ckpt",
        "compiled.pt", "ours.pt", "half.pth",
    ],
)  # fmt: skip
def test_every_container_gives_the_same_encoder(tmp_path, capsys, kind: str) -> None:
    model = trunk()
    path = _checkpoint(tmp_path, kind, model.state_dict())
    encoder = build_backbone(str(path)).eval()
    assert relative(encoder.head(encoder(IMAGES, 4).pooled), model(IMAGES)) < (1e-2 if kind == "half.pth" else 1e-6)
    told = capsys.readouterr().out
    assert "assumed: 1 heads, erf GELU, mean and std 0.5" in told and all(str(tmp_path) in t for t in told.splitlines())
    assert ("without prefix" in told) == (kind in ("parallel.bin", "lightning.ckpt", "compiled.pt", "ours.pt"))
    assert ("under 'state_dict_ema'" in told) == (kind == "averaged.pth")
    assert ("left out, as no part of the encoder: 'model.fc.weight' (3, 3)" in told) == (kind == "lightning.ckpt")
    assert availability(str(path)) is None


def test_a_state_by_name_keeps_the_sizes_of_the_file(tmp_path) -> None:
    path = str(tmp_path / "tiny.pth")
    model = timm.create_model("vit_tiny_patch16_224", img_size=96, patch_size=12, num_classes=7).eval()
    torch.save(model.state_dict(), path)
    encoder = build_backbone("timm:vit_tiny_patch16_224", path=path).eval()
    images = torch.randn(1, 3, 96, 96)
    assert tuple(encoder.base_kernel.shape[2:]) == (12, 12) and encoder.image_size == (96, 96)
    assert relative(encoder.head(encoder(images, 8).pooled), model(images)) < 1e-6
    assert build_backbone("timm:vit_tiny_patch16_224", path=path, num_classes=3).head.weight.shape == (3, 192)
    assert availability("timm:vit_tiny_patch16_224", path=path) is None


def test_eva_by_name_and_by_nothing(tmp_path) -> None:
    model = timm.create_model("eva02_tiny_patch14_224", num_classes=3).eval()
    path = str(tmp_path / "eva.pth")
    torch.save(model.state_dict(), path)
    encoder = build_backbone("timm:eva02_tiny_patch14_224", path=path).eval()
    images = torch.randn(1, 3, 224, 224)
    assert relative(encoder.head(encoder(images, 16).pooled), model(images)) < 1e-5
    with pytest.raises(WeightsError, match="is not one of a VisionTransformer; use timm:NAME with path="):
        build_backbone(path)


def test_a_local_folder_of_timm(tmp_path) -> None:
    model = timm.create_model("vit_tiny_patch16_224", num_classes=4).eval()
    folder = tmp_path / "mine"
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    config = {
        "architecture": "vit_tiny_patch16_224", "num_classes": 4,
        "pretrained_cfg": {"input_size": [3, 224, 224], "mean": [0.1] * 3, "std": [0.2] * 3, "num_classes": 4},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    name = f"timm:local-dir:{folder}"
    assert availability(name) is None
    encoder = build_backbone(name).eval()
    images = torch.randn(1, 3, 224, 224)
    assert relative(encoder.head(encoder(images, 14).pooled), model(images)) < 1e-5
    assert encoder.normalisation.mean == (0.1, 0.1, 0.1) and encoder.flexible is None
    (folder / "model.safetensors").unlink()
    assert "no weights (.safetensors, .pth, .bin)" in availability(name)
    with pytest.raises(WeightsError, match="timm cannot get the weights"):
        build_backbone(name)


def _faulty(kind: str) -> dict:
    state = trunk().state_dict()
    if kind == "missing":
        del state["blocks.1.mlp.fc2.bias"]
    elif kind == "shape":
        state["norm.weight"] = torch.ones(3)
    elif kind == "NaN":
        state["blocks.0.norm1.weight"][3] = float("nan")
    elif kind == "no place":
        state["blocks.0.extra.weight"] = torch.ones(2, 3)
    elif kind == "positions":
        state["pos_embed"] = torch.ones(1, 24, 64)
    elif kind == "two":
        state = {f"{who}.{k}": v for who in ("teacher", "student") for k, v in state.items()}
    elif kind == "none":
        state = {"weight": torch.ones(2, 2)}
    elif kind == "kernel":
        state["patch_embed.proj.weight"] = torch.ones(64, 192)
    return state


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", r"no key 'blocks.1.mlp.fc2.bias', expected shape \(64\)"),
        ("shape", r"key 'norm.weight' has shape \(3\), expected \(64\)"),
        ("NaN", r"not finite in 'blocks.0.norm1.weight' \(64\)"),
        ("no place", r"no place for 'blocks.0.extra.weight' \(2, 3\)"),
        ("positions", "'pos_embed' has 24 entries, no square number"),
        ("two", "several encoders; say which by prefix=: 'teacher.', 'student.'"),
        ("none", r"no ViT under timm's names; it has 'weight' \(2, 2\)"),
        ("kernel", r"'patch_embed.proj.weight' has shape \(64, 192\), expected 4 axes"),
    ],
)
def test_faulty_states_are_told_by_key_and_shape(tmp_path, kind: str, message: str) -> None:
    path = tmp_path / "faulty.pth"
    torch.save(_faulty(kind), path)
    with pytest.raises(WeightsError, match=message) as error:
        build_backbone(str(path))
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_what_has_no_place_can_be_left_out_and_one_of_two_taken(tmp_path, capsys) -> None:
    path = tmp_path / "m.pth"
    torch.save(_faulty("no place"), path)
    build_backbone(str(path), strict=False)
    assert "left out, they have no place: 'blocks.0.extra.weight' (2, 3)" in capsys.readouterr().out
    torch.save(_faulty("two"), path)
    assert build_backbone(str(path), prefix="student.").embed_dim == 64
    torch.save(trunk().state_dict() | {"decoder.weight": torch.ones(2), "mask_token": torch.ones(1)}, path)
    capsys.readouterr()
    build_backbone(str(path))  # a decoder is beside the encoder, a mask token only for its training
    told = capsys.readouterr().out
    assert "left out, they have no place: 'decoder.weight' (2)" in told and "mask_token" not in told


class Evil:
    def __reduce__(self):
        return print, ("run",)


def test_files_that_are_no_checkpoints_or_would_run_code(tmp_path, capsys) -> None:
    state = trunk().state_dict()
    torch.save({"state_dict": state, "hook": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match="evil.pth holds print, which would run code"):
        build_backbone(str(tmp_path / "evil.pth"))
    assert "run" not in capsys.readouterr().out
    torch.save(state, tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:3000])
    (tmp_path / "text.pth").write_text("no checkpoint")
    (tmp_path / "empty.pth").write_bytes(b"")
    torch.save([1, 2], tmp_path / "list.pth")
    for name in ("cut", "text", "empty", "list"):
        with pytest.raises(WeightsError) as error:
            build_backbone(str(tmp_path / f"{name}.pth"))
        assert "\n" not in str(error.value) and name in str(error.value)
    with pytest.raises(WeightsError, match="no weights file nope.pth"):
        build_backbone("nope.pth")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torch.safetensors", "zip archive, as torch.save writes; name it .pth"),
        ("safetensors.pth", "is a safetensors file; name it .safetensors"),
        ("torch.npz", "zip archive and no .npz"),
        ("zip.pth", "no checkpoint of torch"),
        ("half.safetensors", "is truncated: its header tells"),
        ("sparse.pth", r"no plain values in 'norm.bias' \(64\)"),
        ("meta.pth", "no plain values in 'cls_token'"),
        ("pickle.pth", "would run code"),
        ("module.pth", "holds timm.models.vision_transformer.VisionTransformer, which would run code"),
    ],
)
def test_files_that_are_another_thing_than_their_name(tmp_path, capsys, name: str, message: str) -> None:
    path, model = tmp_path / name, trunk()
    state = model.state_dict()
    if name in ("safetensors.pth", "half.safetensors"):
        save_file(state, path)
        path.write_bytes(path.read_bytes()[: None if name == "safetensors.pth" else 90000])
    elif name == "zip.pth":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "no tensors")
    elif name == "pickle.pth":
        path.write_bytes(pickle.dumps({"state_dict": Evil()}))
    else:
        content = {
            "sparse.pth": {**state, "norm.bias": state["norm.bias"].to_sparse()},
            "meta.pth": {k: v.to("meta") for k, v in state.items()},
            "module.pth": model,
        }.get(name, state)  # fmt: skip
        torch.save(content, path)
    with pytest.raises(WeightsError, match=message) as error:
        build_backbone(str(path))
    assert "\n" not in str(error.value) and name in str(error.value)
    assert "run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("[]", "timm cannot get the weights"),
        ("{}", "architecture"),
        ('{"architecture": "nope"}', "Unknown model"),
        ('{"architecture": "vit_tiny_patch16_224"}', "Missing key.* in state_dict: .*cls_token"),
    ],
)
def test_a_local_folder_that_is_not_as_timm_has_it(tmp_path, config: str, message: str) -> None:
    (tmp_path / "config.json").write_text(config)
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=message) as error:
        build_backbone(f"timm:local-dir:{tmp_path}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("leaf", "value"),
    [
        ("Transformer/encoderblock_0/LayerScale_0/scale", np.ones(32, np.float32)),
        ("registers", np.ones((1, 4, 32), np.float32)),
        ("pre_logits/kernel", np.ones((32, 32), np.float32)),
    ],
)
def test_npz_leaves_without_a_place_are_told(tmp_path, capsys, leaf: str, value: np.ndarray) -> None:
    path = str(tmp_path / "more.npz")
    np.savez(path, **tiny_leaves(), **{leaf: value})
    with pytest.raises(WeightsError, match=f"no place for '{leaf}'"):
        build_backbone(path)
    build_backbone(path, strict=False)
    assert f"no place for '{leaf}'" in capsys.readouterr().out


def test_npz_values_that_are_not_finite_are_told(tmp_path) -> None:
    leaves = tiny_leaves()
    leaves["Transformer/encoder_norm/scale"][3] = np.inf
    np.savez(tmp_path / "m.npz", **leaves)
    with pytest.raises(WeightsError, match=r"not finite in 'norm.weight' \(32\)"):
        build_backbone(str(tmp_path / "m.npz"))
