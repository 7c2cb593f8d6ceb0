"""Names that others give to the parts of a ViT, as timm's."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# DINOv2's own code: registers, a mask token that only its training needs, packed SwiGLU
_RENAMED: tuple[tuple[str, str], ...] = (
    (r"^register_tokens$", "reg_token"),
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
)
# DeiT III and BEiT keep LayerScale as plain parameters
_RENAMED += ((r"^(blocks\.\d+)\.gamma_([12])$", r"\1.ls\2.gamma"),)
# blocks that were wrapped or put in chunks: blocks.0.11. and blocks.11._checkpoint_wrapped_module.
_RENAMED += ((r"\._checkpoint_wrapped_module\.", "."), (r"^blocks\.\d+\.(\d+\.)", r"blocks.\1"))
_TRAINING_ONLY = ("mask_token",)


def timm_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state under timm's names, in float32; what only training needed is left out.

    Example: `timm_names({"register_tokens": torch.zeros(1, 4, 8)}).keys()  # reg_token`
    """
    renamed = {}
    for key, value in state.items():
        for pattern, name in _RENAMED:
            key = re.sub(pattern, name, key)
        if key not in _TRAINING_ONLY:
            renamed[key] = value.float() if value.is_floating_point() else value
    # DINOv2 counts a position for the class token but none for registers, as timm's own conversion does
    if {"reg_token", "pos_embed", "cls_token"} <= set(renamed) and _class_position(renamed):
        renamed["cls_token"] = renamed["cls_token"] + renamed["pos_embed"][:, :1]
        renamed["pos_embed"] = renamed["pos_embed"][:, 1:]
    return renamed


def _class_position(state: Mapping[str, Tensor]) -> bool:
    rest = state["pos_embed"].shape[1] - 1
    return round(rest**0.5) ** 2 == rest
