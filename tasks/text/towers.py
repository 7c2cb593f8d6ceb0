"""The text tower of queries: CLIP's, on 16 tokens."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from tasks.contract import TaskError
from tasks.text.prompts import prompted, template_set
from tasks.text.sizes import SMALL
from tasks.text.vectors import unit
from tasks.text.weights import text_state

CONTEXT = 16
CHUNK = 256  # texts a forward pass
START, END = 49406, 49407
# what the official tokenizer makes of an empty text; its padding mask looks for a row that starts with 0
QUIRK = torch.tensor([[START, END, *[0] * (CONTEXT - 2)]])


@lru_cache(maxsize=4)
def _tokenizer(context: int) -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(context_length=context)


# as many as all prompts of LVIS: the tokenizer mends every text anew, which took half of a small sample's time
@lru_cache(maxsize=1 << 17)
def _row(text: str, context: int) -> tuple[int, ...]:
    return tuple(_tokenizer(context)([text])[0].tolist())


def tokenize(texts: Sequence[str], context: int = CONTEXT) -> Tensor:
    """int64 [T, context]; what is too long is cut before its end mark, which pooling needs.

    An empty text becomes a row of zeros: the official code means it as padding.
    """
    rows = [_row(text, context) if text.strip() else [0] * context for text in texts]
    return torch.tensor(rows, dtype=torch.long).view(len(rows), context)


def crop_context(tower: nn.Module, context: int = CONTEXT) -> nn.Module:
    """Cut an open_clip text tower to fewer tokens, in place: causal, so the kept tokens come out bit-identical.

    Raises: TaskError for a tower that is not causal or is shorter already.
    """
    if tower.attn_mask is None:
        raise TaskError(f"{type(tower).__name__} is not causal; cutting its context would change its embeddings")
    if context > tower.num_pos:
        raise TaskError(f"context {context} is longer than the tower's {tower.num_pos}")
    tower.positional_embedding = nn.Parameter(
        tower.positional_embedding.detach()[:context].clone(), tower.positional_embedding.requires_grad
    )
    tower.register_buffer("attn_mask", tower.attn_mask[:context, :context].clone(), persistent=False)
    tower.num_pos = tower.context_length = context
    return tower


def build_text_tower(name: str = "ViT-B-16-quickgelu", weights: str = "", drop_path: float = 0.0) -> nn.Module:
    """An open_clip model's text tower, or tiny, nano, small, small-512; of 16 tokens; `.output_dim`: width of queries.

    Args: weights: tag of open_clip (OpenAI's need the `-quickgelu` names), or a file of ours with a tower under
        `text.` (locked-image tuning leaves one, so does a detector); "" is untrained. drop_path: of the last layer.
    Raises: TaskError for an unknown name, a tower that is not CLIP's transformer, weights that do not fit.

    Example: `build_text_tower("ViT-B-16-quickgelu", "openai", drop_path=0.1)`
    """
    import open_clip
    from open_clip.transformer import QuickGELU, TextTransformer

    if name in SMALL:
        sizes = dict(SMALL[name])
        tower = TextTransformer(context_length=CONTEXT, output_dim=sizes.pop("embed_dim"), **sizes)
    else:
        config = open_clip.get_model_config(name)
        if config is None:
            near = difflib.get_close_matches(name, [*SMALL, *open_clip.list_models()], 3, 0.4)
            raise TaskError(f"no open_clip model {name!r}; nearest: {', '.join(near) or 'ViT-B-16-quickgelu'}")
        text = dict(config["text_cfg"])
        known = {"context_length", "vocab_size", "width", "heads", "layers"}
        if extra := set(text) - known:
            raise TaskError(f"text tower of {name!r} is not plain CLIP: it has {', '.join(sorted(extra))}")
        act = QuickGELU if config.get("quick_gelu") else nn.GELU
        tower = crop_context(TextTransformer(**text, output_dim=config["embed_dim"], act_layer=act))
    if weights:
        load_text(tower, name, weights)
    return drop_text_paths(tower, drop_path) if drop_path else tower


def load_text(tower: nn.Module, name: str, weights: str) -> None:
    """Weights of a file of ours (`text.*`), or of an open_clip tag, into a tower of at most as many positions.

    Raises: TaskError for a file or tag that cannot be had, or the first part that does not fit.
    """
    fit_text(tower, name, text_state(name, weights), weights)


def fit_text(tower: nn.Module, name: str, state: dict[str, Tensor], source: object) -> None:
    """A text tower's state into a tower of at most as many positions. Raises: TaskError naming what does not fit."""
    if "positional_embedding" in state:
        state["positional_embedding"] = state["positional_embedding"][: tower.num_pos]
    for key, value in tower.state_dict().items():
        found = tuple(state[key].shape) if key in state else None
        if found != tuple(value.shape):
            raise TaskError(f"{source}: {key!r} of text tower {name!r} has shape {tuple(value.shape)}, not {found}")
    tower.load_state_dict(state, strict=False)


def drop_text_paths(tower: nn.Module, rate: float) -> nn.Module:
    """Stochastic depth in place: linear from 0 to `rate`, attention and MLP apart, without rescaling (OWL-ViT)."""
    from timm.layers import DropPath

    blocks = tower.transformer.resblocks
    for i, block in enumerate(blocks):
        # the places of layer scale, which plain CLIP leaves as identities
        block.ls_1, block.ls_2 = (DropPath(rate * i / max(len(blocks) - 1, 1), scale_by_keep=False) for _ in "12")
    return tower


def encode_tokens(tower: nn.Module, tokens: Tensor) -> Tensor:
    """Embeddings float32 [T, E] of int64 [T, L], not normalised; L at most the tower's context.

    No more positions are needed than the longest text has: the tower is causal and pools at the end mark.
    """
    length = tokens.shape[1]
    x = tower.token_embedding(tokens) + tower.positional_embedding[:length]
    x = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask[:length, :length]))
    # the end mark is the largest number
    return (x[torch.arange(len(x), device=x.device), tokens.argmax(1)] @ tower.text_projection).float()


def encode_texts(tower: nn.Module, texts: Sequence[str]) -> Tensor:
    """Embeddings float32 [T, E], not normalised; texts that occur twice are encoded once.

    Example: `encode_texts(build_text_tower(), ["a red mug"]).shape` is [1, 512].
    """
    tokens, where = torch.unique(tokenize(texts, tower.context_length), dim=0, return_inverse=True)
    device = tower.positional_embedding.device
    tokens = tokens[:, : longest(tokens)].to(device)
    return torch.cat([encode_tokens(tower, part) for part in tokens.split(CHUNK)])[where.to(device)]


def longest(tokens: Tensor) -> int:
    """How many positions the longest text of int64 [..., L] fills, its end mark included; 1 at least.

    Example: `tokens[:, : longest(tokens)]`
    """
    return int(tokens.argmax(-1).max()) + 1 if tokens.numel() else 1


@torch.no_grad()
def category_queries(tower: nn.Module, names: Sequence[str], prompts: str = "best") -> Tensor:
    """One query a category, float32 [C, E]: the mean of its prompts' unit embeddings, not normalised again.

    With `normalised=True` in the class head this is the mean of the logits of all prompts, in one pass.

    Raises: TaskError for no names, names without letters, unknown prompt sets.
    """
    if not names:
        raise TaskError("no categories to look for")
    templates = template_set(prompts)
    texts = [text for name in names for text in prompted(name, templates)]
    return unit(encode_texts(tower, texts)).unflatten(0, (len(names), len(templates))).mean(1)
