"""big_vision's ViT as a timm trunk: built from a shape, initialised as there."""

from __future__ import annotations

from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from backbones.contract import VitShape
from backbones.encoder import HALF
from backbones.flexible import FlexiBackbone
from backbones.grids import Size


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
        global_pool=shape.pool,  # type: ignore[arg-type]
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


def replace_head(trunk: Any, num_classes: int | None) -> None:
    """A new zero classifier with `num_classes` outputs; 0 removes it; None leaves the upstream one."""
    if num_classes is not None:
        trunk.reset_classifier(num_classes)
        if num_classes:
            nn.init.zeros_(trunk.head.weight)
            nn.init.zeros_(trunk.head.bias)
