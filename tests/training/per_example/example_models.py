"""Models out of all kinds of layers, each with a loss of its own for every example."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.resize import resize_patch_kernel
from tasks.contract import Batch

WIDTH, LENGTH, WORDS, SIDE = 8, 6, 11, 12


class Linear(nn.Module):
    def __init__(self, bias: bool = True):
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH, bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Twice(Linear):
    """One layer on two inputs, and its weight once more by itself."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(F.gelu(self.layer(x))) @ self.layer.weight + self.layer.weight.mean()


class Attention(nn.Module):
    def __init__(self, causal: bool = False, batch_first: bool = True, weights: bool = False):
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=batch_first)
        self.weights = weights
        self.mask = torch.full((LENGTH, LENGTH), -math.inf).triu(1) if causal else None

    def forward(self, x: Tensor) -> Tensor:
        t = x if self.attention.batch_first else x.transpose(0, 1)
        mask = None if self.mask is None else self.mask.to(x.dtype)
        out, found = self.attention(t, t, t, attn_mask=mask, need_weights=self.weights)
        out = out if self.attention.batch_first else out.transpose(0, 1)
        return x + out + (found.sum((1, 2))[:, None, None] if self.weights else 0)


class Biased(nn.Module):
    """Attention with a learned bias of positions, and a query that is a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.bias, self.query = nn.Parameter(torch.randn(2, LENGTH, LENGTH)), nn.Parameter(torch.randn(1, 1, WIDTH))
        self.project = nn.Linear(WIDTH, 3 * WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(x).unflatten(-1, (3, 2, WIDTH // 2)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, self.bias[None]).transpose(1, 2).flatten(2)
        pooled = F.scaled_dot_product_attention(self.query.expand(len(x), -1, -1), x, x)
        return mixed + pooled


class Norms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.group = nn.LayerNorm(WIDTH), nn.GroupNorm(2, LENGTH)
        self.plain, self.scale = nn.LayerNorm(WIDTH, bias=False), nn.Parameter(torch.tensor(0.3))

    def forward(self, x: Tensor) -> Tensor:
        return self.plain(self.group(self.layer(x))) * self.scale.exp()


class Tokens(nn.Module):
    """Prefix and positions, moved from another grid; a slope; a parameter that is never used; one of odd shape."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.positions = nn.Parameter(torch.randn(1, 1, WIDTH)), nn.Parameter(torch.randn(3, WIDTH))
        self.slope, self.unused = nn.PReLU(), nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        moved = F.interpolate(self.positions.T[None], size=LENGTH, mode="linear")[0].T
        x = torch.cat([self.first.expand(len(x), -1, -1), x + moved], 1)
        return self.slope(x)[:, 1:] + x.mean(1, keepdim=True)


PIECES = {
    "linear": Linear, "no bias": lambda: Linear(False), "twice": Twice, "attention": Attention,
    "causal": lambda: Attention(True), "length first": lambda: Attention(True, False),
    "weights": lambda: Attention(weights=True), "biased": Biased, "norms": Norms, "tokens": Tokens,
}  # fmt: skip


class Model(nn.Module):
    """A picture through a resized kernel and a plain convolution, words through a table, then some of the pieces."""

    def __init__(self, pieces: list[str], tied: bool, frozen: bool):
        super().__init__()
        self.kernel, self.shift = nn.Parameter(torch.randn(WIDTH, 3, 8, 8)), nn.Parameter(torch.randn(WIDTH))
        self.overlapping = nn.Conv2d(3, WIDTH, 3, stride=2, padding=1)
        self.table = nn.Embedding(WORDS, WIDTH, padding_idx=0)
        self.pieces = nn.ModuleList(PIECES[name]() for name in pieces)
        self.tied = tied
        if frozen and self.pieces:
            self.pieces[0].requires_grad_(False)

    def forward(self, images: Tensor, words: Tensor) -> Tensor:
        kernel = resize_patch_kernel(self.kernel, SIDE // 2)
        patches = F.conv2d(images, kernel, self.shift, stride=SIDE // 2).flatten(2).mT.mean(1, keepdim=True)
        x = self.table(words) + patches + self.overlapping(images).mean((2, 3))[:, None]
        for piece in self.pieces:
            x = piece(x)
        return F.linear(x, self.table.weight) if self.tied else x


class Words:
    """A task: the loss of an example is a mean over what it sees. `fault` is called in each loss.

    Smooth: where a word comes twice, a maximum has two places, and rounding would choose one.
    """

    def __init__(self, fault: Any = None):
        self.fault = fault

    def loss(self, model: nn.Module, batch: Batch, grid: Any) -> dict[str, Any]:
        if self.fault:
            self.fault(batch)
        out = model(batch.images, batch.targets["words"])
        return {
            "loss": (out.square().mean((1, 2)) + (4 * out.sin()).logsumexp((1, 2))).mean(),
            "count": len(batch),
            "scale": 2.0,
        }


def batch_of(count: int, dtype: torch.dtype = torch.float64) -> Batch:
    words = torch.randint(WORDS, (count, LENGTH))
    return Batch(torch.arange(count), torch.randn(count, 3, SIDE, SIDE, dtype=dtype), {"words": words})
