"""Published OWL-ViT and OWLv2 weights, in the layout of transformers, in our detector.

The image tower becomes a timm ViT inside a `FlexiBackbone`, so the published model runs at any grid as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tasks.contract import TaskError
from tasks.detection.model.detector import Detector

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HEAD = 64  # channels of an attention head in every CLIP model


class _Layout:
    """Takes tensors out of a state, so that what is left over is known."""

    def __init__(self, state: Mapping[str, Tensor]):
        self.state = dict(state)

    def take(self, name: str) -> Tensor:
        if name not in self.state:
            raise TaskError(f"not an OWL-ViT state of transformers: no {name!r}")
        return self.state.pop(name)

    def linear(self, source: str, target: str, bias: bool = True) -> dict[str, Tensor]:
        return {f"{target}.{k}": self.take(f"{source}.{k}") for k in (("weight", "bias") if bias else ("weight",))}

    def block(self, source: str, target: str, names: Mapping[str, str]) -> dict[str, Tensor]:
        """One transformer block; transformers keeps query, key and value apart."""
        out = {}
        for kind in ("weight", "bias"):
            parts = [self.take(f"{source}.self_attn.{p}_proj.{kind}") for p in "qkv"]
            out[f"{target}.{names['qkv'].format(kind)}"] = torch.cat(parts)
        for theirs in ("self_attn.out_proj", "layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2"):
            out |= self.linear(f"{source}.{theirs}", f"{target}.{names[theirs]}")
        return out


TIMM = {
    "qkv": "attn.qkv.{}", "self_attn.out_proj": "attn.proj", "layer_norm1": "norm1", "layer_norm2": "norm2",
    "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
}  # fmt: skip
OPEN_CLIP = {
    "qkv": "attn.in_proj_{}", "self_attn.out_proj": "attn.out_proj", "layer_norm1": "ln_1", "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
}  # fmt: skip


def _depth(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({k.removeprefix(prefix).split(".")[0] for k in state if k.startswith(prefix)})


def _vision(layout: _Layout, heads: int | None) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    from backbones.contract import Normalisation
    from backbones.flexible import FlexiBackbone

    root = "owlvit.vision_model"
    depth = _depth(layout.state, f"{root}.encoder.layers.")
    kernel = layout.take(f"{root}.embeddings.patch_embedding.weight")
    positions = layout.take(f"{root}.embeddings.position_embedding.weight")
    width, patch, side = kernel.shape[0], kernel.shape[-1], round((len(positions) - 1) ** 0.5)
    assert side * side + 1 == len(positions), len(positions)
    state = {"patch_embed.proj.weight": kernel, "pos_embed": positions[None]}
    state["cls_token"] = layout.take(f"{root}.embeddings.class_embedding").view(1, 1, -1)
    state |= layout.linear(f"{root}.pre_layernorm", "norm_pre") | layout.linear(f"{root}.post_layernorm", "norm")
    for i in range(depth):
        state |= layout.block(f"{root}.encoder.layers.{i}", f"blocks.{i}", TIMM)
    hidden = state["blocks.0.mlp.fc1.weight"].shape[0]
    trunk = VisionTransformer(
        img_size=side * patch, patch_size=patch, embed_dim=width, depth=depth, num_heads=heads or width // HEAD,
        mlp_ratio=hidden / width, pre_norm=True, num_classes=0, act_layer="quick_gelu",
        norm_layer=lambda d, **_: nn.LayerNorm(d, eps=1e-5),
    )  # fmt: skip
    trunk.load_state_dict(state)
    return FlexiBackbone(trunk, Normalisation(CLIP_MEAN, CLIP_STD))


def _text(layout: _Layout, heads: int | None) -> nn.Module:
    from open_clip.transformer import QuickGELU, TextTransformer

    root = "owlvit.text_model"
    depth = _depth(layout.state, f"{root}.encoder.layers.")
    words = layout.take(f"{root}.embeddings.token_embedding.weight")
    positions = layout.take(f"{root}.embeddings.position_embedding.weight")
    # their dense layer is x W^T, open_clip's parameter x W
    state = {"token_embedding.weight": words, "positional_embedding": positions}
    state["text_projection"] = layout.take("owlvit.text_projection.weight").T
    state |= layout.linear(f"{root}.final_layer_norm", "ln_final")
    for i in range(depth):
        state |= layout.block(f"{root}.encoder.layers.{i}", f"transformer.resblocks.{i}", OPEN_CLIP)
    width = words.shape[1]
    tower = TextTransformer(
        context_length=len(positions), vocab_size=len(words), width=width, heads=heads or width // HEAD, layers=depth,
        mlp_ratio=state["transformer.resblocks.0.mlp.c_fc.weight"].shape[0] / width,
        output_dim=state["text_projection"].shape[1], act_layer=QuickGELU,
    )  # fmt: skip
    tower.load_state_dict(state)
    return tower


def load_owlvit(
    state: Mapping[str, Tensor], vision_heads: int | None = None, text_heads: int | None = None, official: bool = False
) -> Detector:
    """A detector with published weights.

    Args: state: of transformers' `OwlViTForObjectDetection` or `Owlv2ForObjectDetection`. vision_heads, text_heads:
        attention heads; None: 64 channels each, as in all published models. official: the official tanh GELU and
        epsilon of the merge norm, which the weights were trained with; otherwise transformers' own.
    Returns: detector in eval mode; its backbone's native grid is that of the weights.
    Raises: TaskError naming the first part that is missing, or parts that are left over.

    Example: `load_owlvit(OwlViTForObjectDetection.from_pretrained("google/owlvit-base-patch32").state_dict())`
    """
    layout = _Layout({(f"owlvit{k[5:]}" if k.startswith("owlv2.") else k): v for k, v in state.items()})
    backbone, text = _vision(layout, vision_heads), _text(layout, text_heads)
    heads: dict[str, Tensor] = layout.linear("layer_norm", "merge.norm")
    for theirs, ours in (("dense0", "project"), ("logit_shift", "shift"), ("logit_scale", "scale")):
        heads |= layout.linear(f"class_head.{theirs}", f"classes.{ours}")
    objectness = any(k.startswith("objectness_head.") for k in layout.state)
    for theirs, ours in (("box_head", "box"), ("objectness_head", "objectness"))[: 1 + objectness]:
        for i in range(3):
            heads |= layout.linear(f"{theirs}.dense{i}", f"{ours}.layers.{i}")
    # not used in detection: CLIP's image projection and temperature, and numbers that follow from the grid
    unused = ("owlvit.visual_projection.", "owlvit.logit_scale", "box_bias")
    left = [k for k in layout.state if not k.startswith(unused) and not k.endswith(".position_ids")]
    if left:
        raise TaskError(f"OWL-ViT state has {len(left)} parts too many, the first is {left[0]!r}")
    look: dict[str, Any] = {} if official else {"gelu": "none", "merge_eps": 1e-5}
    detector = Detector(backbone, text, objectness=objectness, **look)
    try:
        detector.heads.load_state_dict(heads)
    except RuntimeError as error:
        raise TaskError(f"not OWL-ViT heads: {str(error).splitlines()[1].strip()}") from error
    return detector.eval()
