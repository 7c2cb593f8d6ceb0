"""OWL-ViT's heads on any token map: token merge, class head, box head, objectness head.

Formulas, constants and initial values are those of the official code (Minderer et al. 2022; scenic,
`owl_vit/layers.py`).
"""

from __future__ import annotations

import difflib
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.contract import Features
from tasks.contract import TaskError
from tasks.detection.boxes import box_bias
from tasks.protocols import protocol
from tasks.text.vectors import unit

MERGES = ("mul-ln", "drop", "none")
PRIOR = protocol("detection").value("prior")  # probability of every query at every token before training
MASKED = -1e6
SIZE_BIASES = ("patch", "fixed")
FIXED_SIZE = 1 / 16  # side of the boxes that `fixed` starts from


class Detected(NamedTuple):
    """`logits` [B, N, Q] (or None without queries), `boxes` [B, N, 4] centre form in the unit square, `embeddings`
    [B, N, E] of length 1, `shift` and `scale` [B, N, 1], `objectness` [B, N] or None. All float32."""

    logits: Tensor | None
    boxes: Tensor
    embeddings: Tensor
    shift: Tensor
    scale: Tensor
    objectness: Tensor | None


def lecun_normal_(weight: Tensor) -> None:
    """Truncated normal of variance 1 / inputs, as flax's default for dense layers."""
    # .8796...: standard deviation of a unit normal cut at two
    nn.init.trunc_normal_(weight, std=1.0, a=-2.0, b=2.0)
    with torch.no_grad():
        weight.mul_(weight.shape[1] ** -0.5 / 0.87962566103423978)


class TokenMerge(nn.Module):
    """Class token into patch tokens: `mul-ln` multiplies and normalises (CLIP models), `drop` leaves it out, `none`
    is for backbones without one (LiT).

    Args: eps: 1e-6 officially; transformers has 1e-5.
    Raises: TaskError for an unknown way; on use, for `mul-ln` without class token or `none` with one.
    """

    def __init__(self, width: int, how: str = "mul-ln", eps: float = 1e-6):
        super().__init__()
        if how not in MERGES:
            near = difflib.get_close_matches(str(how), MERGES, 1, 0.4) or MERGES
            raise TaskError(f"no token merge {how!r}; nearest: {', '.join(near)}")
        self.how = how
        self.norm = nn.LayerNorm(width, eps=eps) if how == "mul-ln" else None

    def forward(self, features: Features) -> Tensor:
        """Token map [B, h, w, D]."""
        if self.how == "mul-ln":
            if features.cls is None:
                raise TaskError("token merge 'mul-ln' needs a backbone with a class token; nearest: none, drop")
            return self.norm(features.map * features.cls[:, None, None])
        if self.how == "none" and features.cls is not None:
            raise TaskError("token merge 'none' is for backbones without class token; nearest: drop, mul-ln")
        return features.map


class ClassHead(nn.Module):
    """Cosine of token and query, moved by a learned shift and scale of each token.

    Always float32: at the start embeddings are of length 1e-3 and gradients through their normalisation large.
    """

    def __init__(self, width: int, embed_dim: int):
        super().__init__()
        self.project = nn.Linear(width, embed_dim)
        self.shift, self.scale = nn.Linear(width, 1), nn.Linear(width, 1)
        nn.init.normal_(self.project.weight, std=1e-6)
        for layer in (self.shift, self.scale):
            lecun_normal_(layer.weight)
        for layer in (self.project, self.shift, self.scale):
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.shift.bias, math.log(PRIOR / (1 - PRIOR)))

    def forward(
        self, tokens: Tensor, queries: Tensor | None, mask: Tensor | None = None, normalised: bool = False
    ) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
        """Logits [B, N, Q], unit embeddings [B, N, E], shift and scale [B, N, 1].

        Args: tokens [B, N, D]; queries [B, Q, E] or [Q, E] for all images; mask [B, Q] or [Q], 0 where a query is
            padding (logit -1e6); normalised: queries are used as they are (means of unit embeddings).
        """
        with torch.autocast(tokens.device.type, enabled=False):
            tokens = tokens.float()
            embeddings = unit(self.project(tokens))
            shift, scale = self.shift(tokens), F.elu(self.scale(tokens)) + 1
            if queries is None:
                return None, embeddings, shift, scale
            if queries.shape[-1] != embeddings.shape[-1]:
                raise TaskError(f"queries have width {queries.shape[-1]}; this class head has {embeddings.shape[-1]}")
            queries = queries.float() if normalised else unit(queries)
            logits = (embeddings @ queries.mT + shift) * scale
            if mask is not None:
                logits = logits.masked_fill(mask[..., None, :] == 0, MASKED)
            return logits, embeddings, shift, scale


class TokenMLP(nn.Module):
    """Three dense layers, the last one zero at the start. `gelu` is `tanh` officially, `none` (erf) in transformers."""

    def __init__(self, width: int, outputs: int, gelu: str = "tanh"):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, outputs)])
        self.gelu = gelu
        for layer in self.layers:
            lecun_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.layers[-1].weight)

    def forward(self, tokens: Tensor) -> Tensor:
        first, second, last = self.layers
        return last(F.gelu(second(F.gelu(first(tokens), approximate=self.gelu)), approximate=self.gelu))


class DetectionHeads(nn.Module):
    """All heads on the features of any backbone at any grid; no parameter knows a grid.

    Args: width: of the backbone. embed_dim: of the queries. merge: `mul-ln`, `drop`, `none`. objectness: with the
        head of OWLv2, which sees detached tokens. gelu, merge_eps: official, or those of transformers' weights.
        size_bias: boxes start as large as a `patch` (official), so that the same thing needs another output of the
        box head at each grid, or `fixed` at 1/16 of the image at every grid.
    Raises: TaskError for an unknown merge or size bias.

    Example::

        heads = DetectionHeads(encoder.embed_dim, 512)
        found = heads(encoder(images, grid), queries)   # queries [Q, 512]
    """

    def __init__(
        self,
        width: int,
        embed_dim: int,
        merge: str = "mul-ln",
        objectness: bool = False,
        gelu: str = "tanh",
        merge_eps: float = 1e-6,
        size_bias: str = "patch",
    ):
        super().__init__()
        if size_bias not in SIZE_BIASES:
            raise TaskError(f"no size bias {size_bias!r}; there are: {', '.join(SIZE_BIASES)}")
        self.box_size = FIXED_SIZE if size_bias == "fixed" else None
        self.merge = TokenMerge(width, merge, merge_eps)
        self.classes = ClassHead(width, embed_dim)
        self.box = TokenMLP(width, 4, gelu)
        self.objectness = TokenMLP(width, 1, gelu) if objectness else None
        self._bias: dict[tuple, Tensor] = {}  # location biases by grid and device: numbers of the grid, not weights

    def bias(self, h: int, w: int, device: torch.device) -> Tensor:
        key = (h, w, device)
        if key not in self._bias:
            # a tensor made under inference_mode could not be used in training later
            with torch.inference_mode(False):
                self._bias[key] = box_bias(h, w, device, self.box_size)
        return self._bias[key]

    def forward(
        self, features: Features, queries: Tensor | None, mask: Tensor | None = None, normalised: bool = False
    ) -> Detected:
        """Logits, boxes and embeddings of every token, row by row; arguments as in `ClassHead`."""
        merged = self.merge(features)
        h, w = merged.shape[1:3]
        tokens = merged.flatten(1, 2)
        logits, embeddings, shift, scale = self.classes(tokens, queries, mask, normalised)
        boxes = (self.box(tokens).float() + self.bias(h, w, tokens.device)).sigmoid()
        objectness = self.objectness(tokens.detach()).float()[..., 0] if self.objectness is not None else None
        return Detected(logits, boxes, embeddings, shift, scale, objectness)
