"""Locked-image tuning: a flexible image tower, a text tower of open_clip, one space (LiT, Zhai et al. 2022)."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.contract import Grid, TaskError
from tasks.contract.frozen import Frozen
from tasks.protocols import protocol
from tasks.text.towers import encode_tokens, longest

PROTOCOL = protocol("retrieval")
BERT = PROTOCOL.value("bert")

# Sizes of text towers that are trained from scratch, and BERT with its weights; open_clip's own are known too.
TEXT: dict[str, dict[str, Any]] = {
    "tiny": {"width": 32, "heads": 2, "layers": 1, "context_length": 16},
    "nano": {"width": 128, "heads": 4, "layers": 4, "context_length": 32},
    "small": {"width": 384, "heads": 6, "layers": 12, "context_length": 64},
    "bert-base": {
        "hf_model_name": BERT, "hf_tokenizer_name": BERT, "hf_proj_type": "linear", "hf_pooler_type": "cls_pooler",
        "context_length": 16,
    },
}  # fmt: skip
LOSSES = ("sigmoid", "contrastive")
# how open_clip builds a tower whose kept tokens do not depend on those that follow; what it takes where nothing is said
CAUSAL = {
    "no_causal_mask": False, "embed_cls": False, "pool_type": "argmax", "proj_type": "linear", "proj_bias": False,
}  # fmt: skip
WIDTHS = 4


def text_config(name: str) -> dict[str, Any]:
    """open_clip's text configuration behind a name.

    Raises: TaskError naming the nearest known names.
    """
    import open_clip

    if name in TEXT:
        return dict(TEXT[name])
    config = open_clip.get_model_config(name)
    if config is None:
        known = [*TEXT, *open_clip.list_models()]
        near = difflib.get_close_matches(name, known, 3, 0.4) or list(TEXT)
        raise TaskError(f"no text tower {name!r}; nearest: {', '.join(near)}")
    return config["text_cfg"]


def tokenizer(name: str) -> Callable[[list[str]], Tensor]:
    """Captions -> int64 [B, context]. Byte pairs from open_clip's wheel, without network; others by its name.

    Example: `tokenizer("nano")(["a dog"]).shape` is (1, 32).
    """
    from open_clip.tokenizer import SimpleTokenizer

    config = text_config(name)
    if name in TEXT and "hf_tokenizer_name" in config:
        from open_clip.tokenizer import HFTokenizer

        return HFTokenizer(config["hf_tokenizer_name"], context_length=config["context_length"])
    if "hf_tokenizer_name" in config or "hf_model_name" in config:
        import open_clip

        return open_clip.get_tokenizer(name)
    return SimpleTokenizer(context_length=config.get("context_length", 77))


def trimmed(name: str, tokens: Tensor) -> Tensor:
    """int64 [B, context] cut to its longest text, where a tower gives the same without what follows the texts.

    That is so of causal towers that pool at the end mark, the largest number, and of BERT, which masks what follows.
    All others (SigLIP's sees its padding) keep every position. Widths go in steps of `WIDTHS`, so that a compiler sees
    few of them.

    Example: `trimmed("nano", tokenizer("nano")(["a dog"])).shape` is (1, 4).
    """
    config = text_config(name)
    if config.get("hf_model_name") == BERT:
        found = int(tokens.ne(0).sum(1).max()) if len(tokens) else 1  # its padding is 0
    elif CAUSAL.items() <= {**CAUSAL, **config}.items() and not {"hf_model_name", "hf_tokenizer_name"} & config.keys():
        found = longest(tokens)
    else:
        return tokens
    return tokens[:, : -(-found // WIDTHS) * WIDTHS]


def text_tower(name: str, width: int, pretrained: str = "") -> tuple[nn.Module, int]:
    """A text tower and the width of its output: `width` from scratch, that of the weights when pretrained.

    Args: pretrained: open_clip's tag or a local file; "" trains from scratch.
    Raises: TaskError for weights that open_clip cannot load, in its words.
    """
    import open_clip
    from open_clip.model import _build_text_tower

    config = text_config(name)
    if not pretrained:
        return _build_text_tower(width, config), width
    if name in TEXT:
        raise TaskError(f"text tower {name!r} has no pretrained weights; name one of open_clip's, such as 'ViT-B-32'")
    try:
        clip = open_clip.create_model(name, pretrained=pretrained, force_custom_text=True)
    except (RuntimeError, OSError) as error:
        raise TaskError(f"text weights {pretrained!r} of {name!r}: {str(error).splitlines()[0]}") from error
    return clip.text, open_clip.get_model_config(name)["embed_dim"]


class LiT(nn.Module):
    """Image and text tower with a learned scale and bias of the logits.

    Args:
        backbone: image encoder; locked (never trained, outside checkpoints) unless `locked` is False.
        text: see `text_tower`. embed_dim: width of the common space for a tower from scratch.
        loss: `sigmoid` (SigLIP) or `contrastive` (CLIP).
        image_head: a projection of the image; without it the common space is as wide as the backbone.
        bias: of the logits at the start, of the sigmoid loss.

    Example::

        model = LiT(build_backbone("flexivit_nano"), text="nano", embed_dim=128)
        image = model.encode_image(images, grid=(8, 8))     # [B, 128], length 1
        text = model.encode_text(tokenizer("nano")(["a dog on the beach"]))
    """

    def __init__(
        self,
        backbone: nn.Module,
        text: str = "nano",
        embed_dim: int = 128,
        loss: str = "sigmoid",
        locked: bool = True,
        pretrained: str = "",
        image_head: bool = True,
        bias: float = PROTOCOL.value("sigmoid_bias"),
    ):
        super().__init__()
        if loss not in LOSSES:
            raise TaskError(f"no loss {loss!r}; there are: {', '.join(LOSSES)}")
        self.backbone = Frozen(backbone) if locked else backbone
        self.locked, self.loss_name = locked, loss
        self.text, width = text_tower(text, embed_dim if image_head else backbone.embed_dim, pretrained)
        if not image_head and width != backbone.embed_dim:
            raise TaskError(f"text tower {text!r} is {width} wide and the backbone {backbone.embed_dim}: "
                            "without an image head they must be equal")  # fmt: skip
        self.projection = nn.Linear(backbone.embed_dim, width, bias=False) if image_head else nn.Identity()
        # the starting points of the two papers, SigLIP and CLIP
        starts = {
            "sigmoid": PROTOCOL.value("sigmoid_scale"),
            "contrastive": 1 / PROTOCOL.value("contrastive_temperature"),
        }
        self.logit_scale = nn.Parameter(torch.tensor(math.log(starts[loss])))
        self.logit_bias = nn.Parameter(torch.tensor(float(bias))) if loss == "sigmoid" else None

    def encode_image(self, images: Tensor, grid: Grid, features: Any = None) -> Tensor:
        """[B, D] of length 1. `features`: what the locked tower gave for these images at this grid, if known."""
        if features is None:
            features = self.backbone(images, grid)
        pooled = getattr(features, "pooled", features)
        return F.normalize(self.projection(pooled), dim=-1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """int64 [B, L] -> [B, D] of length 1; L is the tower's context, or less as `trimmed` leaves it."""
        context = getattr(self.text, "num_pos", None)  # of open_clip's own towers, whose mask has one size
        short = context is not None and tokens.shape[1] < context
        return F.normalize(encode_tokens(self.text, tokens) if short else self.text(tokens), dim=-1)

    def contrast(self, image: Tensor, text: Tensor) -> Tensor:
        """open_clip's loss over the batches of all processes together; a scalar."""
        from open_clip.loss import ClipLoss, SigLipLoss

        ready = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank, size = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if ready else (0, 1)
        scale = self.logit_scale.exp().clamp(max=PROTOCOL.value("largest_scale"))  # CLIP's bound, against overflow
        if self.loss_name == "sigmoid":
            return SigLipLoss(rank=rank, world_size=size)(image, text, scale, self.logit_bias)
        return ClipLoss(local_loss=True, gather_with_grad=True, rank=rank, world_size=size)(image, text, scale)
