"""Backbones from a file: big_vision `.npz` (architecture read from shapes) or our own `.safetensors`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from backbones.download import WeightsError
from backbones.features import Normalisation
from backbones.flexible import FlexiBackbone
from backbones.grids import Size
from backbones.shape import VitShape
from backbones.weights import npz_shape, npz_state, read_npz

HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # big_vision's value_range(-1, 1)


def vit_trunk(shape: VitShape, drop_path: float = 0.0) -> VisionTransformer:
    """A timm ViT with big_vision's details: tanh GELU, LN eps 1e-6, norm before pooling, cls after positions."""
    return VisionTransformer(
        img_size=(shape.positions[0] * shape.patch[0], shape.positions[1] * shape.patch[1]),
        patch_size=shape.patch,
        embed_dim=shape.width,
        depth=shape.depth,
        num_heads=shape.heads,
        mlp_ratio=shape.mlp / shape.width,
        class_token=shape.pool == "token",
        no_embed_class=True,
        global_pool=shape.pool,
        fc_norm=False,
        act_layer="gelu_tanh",
        num_classes=shape.classes,
        drop_path_rate=drop_path,
        weight_init="skip",
    )


@torch.no_grad()
def initialise(trunk: VisionTransformer) -> VisionTransformer:
    """big_vision's initialisation (proj/flexi/vit.py): zero head, xavier per projection, N(0, 1/sqrt(D)) stem."""
    width = trunk.embed_dim
    for name, value in trunk.named_parameters():
        if name in ("patch_embed.proj.weight", "pos_embed"):
            nn.init.normal_(value, std=width**-0.5)
        elif name.endswith("qkv.weight"):
            for part in value.chunk(3):  # each of q, k, v on its own square matrix
                nn.init.xavier_uniform_(part)
        elif name.endswith(".kv.weight"):
            for part in value.chunk(2):
                nn.init.xavier_uniform_(part)
        elif name == "attn_pool.latent":
            nn.init.xavier_uniform_(value[0])
        elif name == "head.weight" or name == "cls_token":
            nn.init.zeros_(value)
        elif value.ndim == 2:
            nn.init.xavier_uniform_(value)
        elif ".fc" in name:
            nn.init.normal_(value, std=1e-6)
        elif name.endswith("bias"):
            nn.init.zeros_(value)
        else:
            assert "norm" in name, name
            nn.init.ones_(value)
    return trunk


def build_from_shape(
    shape: VitShape, image_size: Size = 240, native_grid: Size = 15, drop_path: float = 0.0, **options: Any
) -> FlexiBackbone:
    """Random weights of an architecture, initialised as big_vision does."""
    return FlexiBackbone(initialise(vit_trunk(shape, drop_path)), HALF, image_size, native_grid, **options)


def load_exactly(trunk: nn.Module, state: dict[str, Tensor], where: str) -> None:
    """Load a state of the same names and shapes. Raises WeightsError with key, expected and found shape."""
    expected = trunk.state_dict()
    for key, value in expected.items():
        if key not in state:
            raise WeightsError(f"{where}: no key {key!r}, expected shape {tuple(value.shape)}")
        if state[key].shape != value.shape:
            raise WeightsError(
                f"{where}: key {key!r} has shape {tuple(state[key].shape)}, expected {tuple(value.shape)}"
            )
    if extra := sorted(set(state) - set(expected)):
        raise WeightsError(f"{where}: unexpected key {extra[0]!r} ({len(extra)} in all)")
    trunk.load_state_dict(state)


def replace_head(trunk: nn.Module, num_classes: int | None) -> None:
    """A new zero classifier with `num_classes` outputs; 0 removes it; None leaves the upstream one."""
    if num_classes is not None:
        trunk.reset_classifier(num_classes)
        if num_classes:
            nn.init.zeros_(trunk.head.weight)
            nn.init.zeros_(trunk.head.bias)


def build_from_npz(
    path: str,
    image_size: Size = 240,
    native_grid: Size = 15,
    drop_path: float = 0.0,
    num_classes: int | None = None,
    expected: VitShape | None = None,
    **options: Any,
) -> FlexiBackbone:
    """A big_vision checkpoint. `expected` checks width, depth and heads against what the name promises.

    Raises: WeightsError telling which key does not fit.
    """
    leaves = read_npz(path)
    shape = npz_shape(leaves, str(path))
    if expected and (shape.width, shape.depth, shape.heads) != (expected.width, expected.depth, expected.heads):
        raise WeightsError(f"{path}: expected {expected}; found {shape}")
    state = npz_state(leaves, shape, str(path))
    trunk = vit_trunk(shape, drop_path)
    load_exactly(trunk, state, str(path))
    replace_head(trunk, num_classes)
    return FlexiBackbone(trunk, HALF, image_size, native_grid, **options)


def save_safetensors(backbone: FlexiBackbone, path: str | Path, half: bool = True, **notes: Any) -> None:
    """Write a big_vision-style backbone as `.safetensors` with its architecture; 16-bit floats by default."""
    from safetensors.torch import save_file

    trunk = backbone.trunk
    meta = {
        "width": trunk.embed_dim, "depth": len(trunk.blocks), "heads": trunk.blocks[0].attn.num_heads,
        "mlp": trunk.blocks[0].mlp.fc1.out_features, "patch": list(backbone.base_kernel.shape[-2:]),
        "positions": list(backbone.position_grid), "class_token": trunk.cls_token is not None,
        "pool": trunk.global_pool, "classes": trunk.num_classes,
    }  # fmt: skip
    extra = {"image_size": list(backbone.image_size), "native_grid": list(backbone.native_grid), **notes}
    dtype = torch.float16 if half else torch.float32
    state = {k: v.detach().cpu().to(dtype).contiguous() for k, v in trunk.state_dict().items()}
    partial = Path(path).with_suffix(".part")
    save_file(state, partial, {"vit": json.dumps(meta), "backbone": json.dumps(extra)})
    partial.chmod(0o644)  # safetensors writes for its owner alone
    partial.replace(path)


def build_from_safetensors(
    path: str, drop_path: float = 0.0, num_classes: int | None = None, **options: Any
) -> FlexiBackbone:
    """A file of `save_safetensors`. Raises WeightsError for a missing, truncated or foreign file."""
    if not Path(path).exists():
        raise WeightsError(f"no weights file {path}")
    try:
        with safe_open(path, "pt") as file:
            meta = file.metadata() or {}
            state = {k: file.get_tensor(k).float() for k in file.keys()}  # noqa: SIM118 - safe_open is no mapping
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} ({Path(path).stat().st_size} bytes) is truncated or no safetensors: {error}"
        ) from error
    if "vit" not in meta:
        raise WeightsError(f"{path}: no architecture in its metadata; expected a file of save_safetensors")
    values = json.loads(meta["vit"])
    shape = VitShape(**{**values, "patch": tuple(values["patch"]), "positions": tuple(values["positions"])})
    trunk = vit_trunk(shape, drop_path)
    load_exactly(trunk, state, path)
    replace_head(trunk, num_classes)
    extra = json.loads(meta.get("backbone", "{}"))
    size, grid = tuple(extra.get("image_size", (240, 240))), tuple(extra.get("native_grid", (15, 15)))
    options = {"image_size": size, "native_grid": grid, **options}
    return FlexiBackbone(trunk, HALF, **options)


def build_from_file(path: str, **options: Any) -> FlexiBackbone:
    """`.npz` or `.safetensors` by its ending."""
    return build_from_safetensors(path, **options) if path.endswith(".safetensors") else build_from_npz(path, **options)
