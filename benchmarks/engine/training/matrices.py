"""Products of the block matrices in bfloat16 while a model is trained in float32: a recipe's `matrices: bf16`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.contract import TaskError

BLOCK_MATRIX = re.compile(r"(^|\.)blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(fc1|fc2))$")


class RoundedLinear(nn.Linear):
    """A linear layer whose operands are rounded to bfloat16, forward and backward; its output is float32.

    Under a wider autocast it does as that says. Autocast, not casts of our own, so that per-example clipping sees it.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[..., I] -> float32 [..., O]."""
        device = input.device.type
        if torch.is_autocast_enabled(device):
            return super().forward(input)
        with torch.autocast(device, torch.bfloat16):
            return F.linear(input, self.weight, self.bias).float()


class EmulatedLinear(nn.Linear):
    """The same numbers, but for the order of sums, by products in float32 of rounded operands.

    Of use to a CPU without bfloat16 units: there a product in bfloat16 takes eight times as long as in float32.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[..., I] -> float32 [..., O]."""
        if torch.is_autocast_enabled(input.device.type):
            return super().forward(input)
        bias = None if self.bias is None else _rounded(self.bias)
        return _rounded(F.linear(_rounded(input), _rounded(self.weight), bias))


def _rounded(tensor: Tensor) -> Tensor:
    """To bfloat16 and back, the gradient as well: what a product in bfloat16 takes and gives, both ways."""
    return tensor.bfloat16().float()


@contextlib.contextmanager
def block_matrices(model: nn.Module, kind: str, each: bool = False) -> Iterator[int]:
    """With `bf16`: qkv, proj, fc1 and fc2 of the model's blocks multiply in bfloat16 inside; how many they are.

    Attention, norms, the residual stream, weights and their gradients stay float32, and so does all evaluation. With
    `float32` nothing changes.

    Args: each: gradients are clipped for each example, which has to see the weights themselves in the product.

    Raises: TaskError for a model that has no such blocks to train.

    Example: `with block_matrices(model, "bf16"): model(images, (8, 8)).pooled.sum().backward()`
    """
    if kind == "float32":
        yield 0
        return
    layers = [m for n, m in model.named_modules() if BLOCK_MATRIX.search(n) and type(m) is nn.Linear]
    if not layers:
        raise TaskError("recipe: matrices bf16: the model trains no blocks with qkv, proj, fc1, fc2; leave it float32")
    try:
        for layer in layers:
            emulated = layer.weight.device.type == "cpu" and not (each or _has_units())
            layer.__class__ = EmulatedLinear if emulated else RoundedLinear
        yield len(layers)
    finally:
        for layer in layers:
            layer.__class__ = nn.Linear


def slow_products(kind: str, device: torch.device, each: bool) -> str:
    """What to say where `bf16` slows a training down: a CPU without bfloat16 units that clips each example. Else "".

    Example: `slow_products("float32", torch.device("cpu"), each=True) == ""`
    """
    if kind == "float32" or device.type != "cpu" or not each or _has_units():
        return ""
    units = torch.backends.cpu.get_cpu_capability()
    return (
        f"matrices bf16: this CPU ({units}) has no bfloat16 units and, clipping each example, takes several times as "
        "long as in float32; --set recipe.matrices=float32 is another recipe, in rows of its own"
    )


def _has_units() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
