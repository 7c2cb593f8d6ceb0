"""Evaluation in bfloat16: the weights of the blocks and the residual stream, where autocast keeps both in float32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from backbones.flexible import FlexiBackbone
from backbones.grids import Grid
from benchmarks.engine.memory import free_memory, is_out_of_memory
from benchmarks.store.failures import one_line
from tasks.contract.frozen import Frozen


@contextlib.contextmanager
def bfloat16_weights(model: nn.Module, wanted: bool = True) -> Iterator[list[str]]:
    """Blocks and final norm of the model's backbone hold bfloat16 weights inside, and tokens pass them in bfloat16.

    What is resized (patch kernel, positions), tokens before the first block and all that follows the final norm stay in
    float32 or as autocast says. Weights come back to the bit. An empty picture is looked at first: a backbone that this
    does not suit keeps its precision, and the list that comes back says why.

    Example: `with torch.no_grad(), bfloat16_weights(model) as kept: assert not kept; model(images, (8, 8))`
    """
    encoder = getattr(model, "backbone", None)
    encoder = encoder.module if isinstance(encoder, Frozen) else encoder
    if not wanted:
        yield []
        return
    if not isinstance(encoder, FlexiBackbone):
        yield [f"evaluated with the weights as they are, not in bfloat16: {type(encoder).__name__} has no blocks"]
        return
    with contextlib.ExitStack() as stack:
        stack.enter_context(_inside(encoder))
        why = _problem(encoder)
        if why:
            stack.close()
            free_memory()
        yield [f"evaluated with the weights as they are, not in bfloat16: {why}"] if why else []


@contextlib.contextmanager
def _inside(encoder: FlexiBackbone) -> Iterator[None]:
    parts: list[Any] = [encoder.trunk.blocks, encoder.trunk.norm]
    tensors = [t for part in parts for t in (*part.parameters(), *part.buffers()) if t.dtype == torch.float32]
    before = [t.data for t in tensors]
    plain, own = encoder.encode, encoder.__dict__.get("encode")

    def encode(x: Tensor, grid: Grid, taps: Sequence[int] = ()) -> tuple[Tensor, list[Tensor]]:
        with torch.autocast(x.device.type, enabled=False):
            out, inner = plain(x.bfloat16(), grid, taps)
        return out.to(x.dtype), [t.to(x.dtype) for t in inner]

    for tensor in tensors:
        tensor.data = tensor.data.bfloat16()
    encoder.encode = encode  # type: ignore[method-assign]
    try:
        yield
    finally:
        for tensor, data in zip(tensors, before, strict=True):
            tensor.data = data
        if own is None:
            del encoder.__dict__["encode"]
        else:
            encoder.encode = own  # type: ignore[method-assign]


def _problem(encoder: FlexiBackbone) -> str:
    """Why an empty picture cannot be looked at; empty where it can."""
    channels, some = encoder.base_kernel.shape[1], encoder.base_kernel
    try:
        with torch.no_grad():
            given: Any = torch.zeros(1, channels, *encoder.image_size, device=some.device, dtype=some.dtype)
            found = encoder(given, encoder.native_grid)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        return one_line(error)
    return "" if bool(found.pooled.isfinite().all()) else "features are not finite"
