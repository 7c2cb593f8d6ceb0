"""Backbones from a plain state dict: the architecture read from its shapes, or that of a timm name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
from timm.layers import SwiGLU, SwiGLUPacked
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from backbones.contract import Normalisation, WeightsError
from backbones.encoder import HALF
from backbones.flexible import FlexiBackbone
from backbones.grids import Size, as_pair
from backbones.weights.checkpoints import KERNEL, read_checkpoint, state_of
from backbones.weights.layouts import timm_names
from backbones.weights.state import check_finite, listed, shape_text, unexpected_keys
from backbones.zoo.architecture import replace_head
from backbones.zoo.shapes import NANO, SIZES

# heads are in no shape; of a model with these sizes they are known, else 64 channels each
HEADS = {(s.width, s.depth): s.heads for s in (*SIZES.values(), NANO)}
HEADS |= {(1280, 32): 16, (1152, 27): 16, (1408, 40): 16, (1664, 48): 16, (512, 12): 8, (640, 12): 10}
PARTS = (
    "patch_embed.", "blocks.", "norm", "cls_token", "pos_embed", "reg_token", "dist_token", "attn_pool.", "fc_norm.",
)  # fmt: skip


FOREIGN = ("rope", ".attn.q_proj.", ".attn.q_bias", ".mlp.w1.")  # of Eva and its kin


def build_from_checkpoint(
    path: str,
    drop_path: float = 0.0,
    num_classes: int | None = None,
    prefix: str | None = None,
    heads: int | None = None,
    act_layer: str | None = None,
    image_size: Size | None = None,
    normalisation: Normalisation | tuple | None = None,
    strict: bool = True,
    **options: Any,
) -> FlexiBackbone:
    """A timm ViT from a state dict under timm's names, its architecture read from the shapes.

    What no shape tells is assumed and said: heads, the activation (erf GELU, as timm), the input's mean and standard
    deviation (0.5), the image size where positions are not square.

    Args: prefix: which of several encoders, such as `teacher.backbone.`. strict: refuse tensors of the encoder that
        have no place; False says them and goes on.

    Raises: WeightsError telling which key does not fit.
    """
    state = timm_names(state_of(read_checkpoint(path), path, prefix))
    found = architecture(state, path, heads, image_size)
    guessed = [] if heads else [f"{found['num_heads']} heads"]
    guessed += [] if act_layer or found["act_layer"] else ["erf GELU"]
    guessed += [] if normalisation else ["mean and std 0.5"]
    make = VisionTransformerDistilled if "dist_token" in state else VisionTransformer
    if make is VisionTransformerDistilled:
        found = {k: v for k, v in found.items() if k not in ("class_token", "no_embed_class", "reg_tokens")}
    found["act_layer"] = act_layer or found["act_layer"]
    trunk = make(**found, drop_path_rate=drop_path, weight_init="skip")
    fill(trunk, state, path, strict)
    if guessed:
        size = "x".join(map(str, found["patch_size"]))
        print(
            f"{path}: a ViT of width {found['embed_dim']}, depth {found['depth']}, kernel {size}; not in the file and "
            f"assumed: {', '.join(guessed)} (options heads, act_layer, normalisation; or timm:NAME with path={path})"
        )
    replace_head(trunk, num_classes)
    return FlexiBackbone(trunk, Normalisation(*(normalisation or HALF)), image_size, **options)


def architecture(
    state: Mapping[str, Tensor], where: str, heads: int | None = None, image_size: Size | None = None
) -> dict[str, Any]:
    """Arguments of timm's `VisionTransformer` as the shapes of a state tell them.

    Raises: WeightsError for a model of another family, or positions that fit no grid.
    """
    if other := next((k for k in state if any(part in k for part in FOREIGN)), None):
        raise WeightsError(f"{where}: key {other!r} is not one of a VisionTransformer; use timm:NAME with path={where}")
    kernel = state[KERNEL]
    if kernel.ndim != 4:
        raise WeightsError(f"{where}: key {KERNEL!r} has shape {shape_text(kernel)}, expected 4 axes")
    width, patch = kernel.shape[0], (kernel.shape[2], kernel.shape[3])
    depth = len({k.split(".")[1] for k in state if k.startswith("blocks.")})
    first, second = (state.get(f"blocks.0.mlp.{n}.weight") for n in ("fc1", "fc2"))
    gate = state.get("blocks.0.mlp.fc1_g.weight")
    if not depth or second is None or (first is None and gate is None):
        raise WeightsError(f"{where}: no blocks.0.mlp.fc1 and fc2: not a ViT under timm's names")
    packed = first is not None and first.shape[0] == 2 * second.shape[1]
    layer = {"mlp_layer": SwiGLU} if gate is not None else {"mlp_layer": SwiGLUPacked} if packed else {}
    hidden = second.shape[1] * (2 if packed else 1)
    registers = state["reg_token"].shape[1] if "reg_token" in state else 0
    special = ("cls_token" in state) + ("dist_token" in state) + registers
    grid, with_prefix = position_grid(state.get("pos_embed"), special, patch, where, image_size)
    head = state.get("head.weight")
    pool = "map" if "attn_pool.latent" in state else "avg" if special == 0 or "fc_norm.weight" in state else "token"
    return {
        "img_size": (grid[0] * patch[0], grid[1] * patch[1]), "patch_size": patch, "in_chans": kernel.shape[1],
        "embed_dim": width, "depth": depth, "num_heads": heads or _heads(state, width, depth),
        "mlp_ratio": hidden / width, "qkv_bias": "blocks.0.attn.qkv.bias" in state,
        "qk_norm": "blocks.0.attn.q_norm.weight" in state, "proj_bias": "blocks.0.attn.proj.bias" in state,
        "init_values": 1.0 if "blocks.0.ls1.gamma" in state else None, "class_token": "cls_token" in state,
        "reg_tokens": registers, "pos_embed": "learn" if "pos_embed" in state else "none",
        "no_embed_class": not with_prefix, "pre_norm": "norm_pre.weight" in state, "global_pool": pool,
        "final_norm": "norm.weight" in state or "fc_norm.weight" in state, "fc_norm": "fc_norm.weight" in state,
        "num_classes": head.shape[0] if head is not None and head.ndim == 2 else 0, **layer,
        "act_layer": "silu" if layer else None,
    }  # fmt: skip


def _heads(state: Mapping[str, Tensor], width: int, depth: int) -> int:
    if (norm := state.get("blocks.0.attn.q_norm.weight")) is not None and width % norm.shape[0] == 0:
        return width // norm.shape[0]
    return HEADS.get((width, depth)) or max(1, width // 64)


def position_grid(
    positions: Tensor | None, special: int, patch: tuple[int, int], where: str, image_size: Size | None
) -> tuple[tuple[int, int], bool]:
    """Grid of stored positions, and whether class and register tokens have some of their own."""
    size = as_pair(image_size) if image_size else None
    grid = (size[0] // patch[0], size[1] // patch[1]) if size else None
    if positions is None:
        return grid or (14, 14), False
    count = positions.shape[1]
    for own in (True, False):
        rest = count - special * own
        if grid and grid[0] * grid[1] == rest:
            return grid, own
        side = round(rest**0.5)
        if side * side == rest:
            return (side, side), own
    raise WeightsError(
        f"{where}: key 'pos_embed' has {count} entries, no square number with or without {special} for special tokens; "
        "pass image_size=(height, width)"
    )


def fill(trunk: nn.Module, state: Mapping[str, Tensor], where: str, strict: bool = True) -> None:
    """Load a state into a model; what of the encoder is missing, misshapen or without a place is an error.

    Heads, decoders and other tensors beside the encoder are left out and told.

    Raises: WeightsError with key, expected and actual shape.
    """
    extra = unexpected_keys(trunk, state, where)
    inner = [k for k in extra if k.startswith(PARTS)]
    if inner and strict:
        raise WeightsError(
            f"{where}: no place for {listed(state, inner)}; the encoder would be another without (strict=False leaves "
            "them out)"
        )
    if extra:
        print(f"{where}: left out, they have no place: {listed(state, extra)}")
    own = {name: state[name] for name in trunk.state_dict()}
    check_finite(own, where)
    trunk.load_state_dict(own)


def build_by_name(
    name: str, path: str, prefix: str | None = None, strict: bool = True, **keywords: Any
) -> VisionTransformer:
    """A timm model by name with the weights of a file, kernel and positions in the sizes of the file.

    Raises: WeightsError telling which key does not fit.
    """
    state = timm_names(state_of(read_checkpoint(path), path, prefix))
    plain: Any = timm.create_model(name, pretrained=False, **keywords)
    kernel, patch = state[KERNEL], plain.patch_embed.patch_size
    if kernel.ndim == 4 and tuple(kernel.shape[2:]) != tuple(patch):
        patch = tuple(kernel.shape[2:])
        keywords["patch_size"] = patch
    if "pos_embed" in state and plain.pos_embed is not None:
        special = 0 if getattr(plain, "no_embed_class", False) else plain.num_prefix_tokens
        grid, _ = position_grid(state["pos_embed"][:, special:], 0, patch, path, None)
        keywords["img_size"] = (grid[0] * patch[0], grid[1] * patch[1])
    head = state.get("head.weight")
    stored = head.shape[0] if head is not None and head.ndim == 2 else 0
    asked = keywords.pop("num_classes", stored)
    trunk: Any = timm.create_model(name, pretrained=False, num_classes=stored, **keywords)
    fill(trunk, state, path, strict)
    if asked != stored:
        replace_head(trunk, asked)
    return trunk
