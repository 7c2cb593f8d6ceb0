"""The text tower of queries: CLIP's, on 16 tokens."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from tasks.detection.heads import unit
from tasks.detection.prompts import prompted, template_set
from tasks.task import TaskError

CONTEXT = 16
CHUNK = 256  # texts a forward pass


@lru_cache(maxsize=4)
def _tokenizer(context: int) -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(context_length=context)


def tokenize(texts: Sequence[str], context: int = CONTEXT) -> Tensor:
    """int64 [T, context]; what is too long is cut before its end mark, which pooling needs.

    An empty text becomes a row of zeros: the official code means it as padding.
    """
    tokens = _tokenizer(context)(list(texts)) if texts else torch.zeros(0, context, dtype=torch.long)
    return tokens * torch.tensor([bool(t.strip()) for t in texts], dtype=torch.long)[:, None]


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


def build_text_tower(name: str = "ViT-B-16-quickgelu") -> nn.Module:
    """The untrained text tower of an open_clip model, cut to 16 tokens; `.output_dim` is the width of queries.

    OpenAI's weights need the `-quickgelu` names.

    Raises: TaskError for an unknown name or a tower that is not CLIP's transformer.
    """
    import open_clip
    from open_clip.transformer import QuickGELU, TextTransformer

    config = open_clip.get_model_config(name)
    if config is None:
        near = difflib.get_close_matches(name, open_clip.list_models(), 3, 0.4)
        raise TaskError(f"no open_clip model {name!r}; nearest: {', '.join(near) or 'ViT-B-16-quickgelu'}")
    text = dict(config["text_cfg"])
    known = {"context_length", "vocab_size", "width", "heads", "layers"}
    if extra := set(text) - known:
        raise TaskError(f"text tower of {name!r} is not plain CLIP: it has {', '.join(sorted(extra))}")
    act = QuickGELU if config.get("quick_gelu") else nn.GELU
    return crop_context(TextTransformer(**text, output_dim=config["embed_dim"], act_layer=act))


def encode_texts(tower: nn.Module, texts: Sequence[str]) -> Tensor:
    """Embeddings float32 [T, E], not normalised. Texts that occur twice are encoded once.

    Example: `encode_texts(build_text_tower(), ["a red mug"]).shape` is [1, 512].
    """
    unique = list(dict.fromkeys(texts))
    where = {t: i for i, t in enumerate(unique)}
    device = tower.positional_embedding.device
    tokens = tokenize(unique, tower.context_length).to(device)
    parts = [tower(tokens[i : i + CHUNK]).float() for i in range(0, len(tokens), CHUNK)]
    return torch.cat(parts)[torch.tensor([where[t] for t in texts], device=device)]


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
