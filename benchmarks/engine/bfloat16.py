"""What autocast keeps in float32, in bfloat16: the residual stream, and in evaluation the weights of the blocks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from backbones.flexible import FlexiBackbone
from backbones.grids import Grid
from benchmarks.engine.memory import free_memory, is_out_of_memory
from benchmarks.store.failures import one_line
from tasks.contract import TaskError
from tasks.contract.frozen import Frozen


@contextlib.contextmanager
def bfloat16_weights(model: nn.Module, wanted: bool = True) -> Iterator[list[str]]:
    """Blocks and final norm of the model's backbone hold bfloat16 weights inside, and tokens pass them in bfloat16.

    What is resized (patch kernel, positions), tokens before the first block and all that follows the final norm stay in
    float32 or as autocast says. Weights come back to the bit. An empty picture is looked at first: a backbone that this
    does not suit keeps its precision, and the list that comes back says why.

    Example: `with torch.no_grad(), bfloat16_weights(model) as kept: assert not kept; model(images, (8, 8))`
    """
    encoder = _backbone(model)
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
def residual_stream(model: nn.Module, kind: str, precision: str) -> Iterator[None]:
    """With `bf16`: tokens pass the blocks of the model's backbone in bfloat16 inside, and their sums with them.

    Autocast multiplies in bfloat16 and adds to a stream in float32, as tokens come in float32. Weights, their
    gradients, norms and all that follows the last of them are as autocast has them. With `float32` nothing changes.

    Args: precision: of autocast, as accelerate names it.

    Raises: TaskError without bfloat16 autocast, and for a backbone whose blocks leave the stream in float32.

    Example: `with residual_stream(model, "bf16", "bf16"), accelerator.autocast(): model(images, (8, 8))`
    """
    encoder = _backbone(model)
    if kind == "float32":
        yield
        return
    check_residual(kind, precision)
    if not isinstance(encoder, FlexiBackbone):
        raise TaskError(f"recipe: residual bf16: {type(encoder).__name__} has no blocks; leave it float32")
    plain = encoder.encode

    def encode(x: Tensor, grid: Grid, taps: Sequence[int] = ()) -> tuple[Tensor, list[Tensor]]:
        out, inner = plain(x.bfloat16(), grid, taps)
        return out.to(x.dtype), [t.to(x.dtype) for t in inner]

    with _encoding(encoder, encode):
        if (left := _left_in(encoder)) != torch.bfloat16:
            told = f"blocks of this backbone give {str(left).removeprefix('torch.')}, as those with LayerScale do"
            raise TaskError(f"recipe: residual bf16: {told}; leave it float32")
        yield


def check_residual(kind: str, precision: str) -> None:
    """Raises: TaskError for a stream in bfloat16 without bfloat16 autocast, as `residual_stream` does."""
    if kind != "float32" and precision != "bf16":
        raise TaskError("recipe: residual bf16 needs training in bfloat16: --precision bf16, or leave it float32")


def _left_in(encoder: FlexiBackbone) -> torch.dtype | None:
    """The type in which the last block gives tokens, under bfloat16 autocast."""
    seen: list[torch.dtype] = []
    kernel = encoder.base_kernel
    hook = encoder.trunk.blocks[-1].register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    try:
        with torch.no_grad(), torch.autocast(kernel.device.type, torch.bfloat16):
            given = torch.zeros(1, kernel.shape[1], *encoder.image_size, device=kernel.device, dtype=kernel.dtype)
            encoder(given, encoder.native_grid)
    finally:
        hook.remove()
    return seen[0] if seen else None


def _backbone(model: nn.Module) -> Any:
    encoder = getattr(model, "backbone", None)
    return encoder.module if isinstance(encoder, Frozen) else encoder


@contextlib.contextmanager
def _inside(encoder: FlexiBackbone) -> Iterator[None]:
    parts: list[Any] = [encoder.trunk.blocks, encoder.trunk.norm]
    tensors = [t for part in parts for t in (*part.parameters(), *part.buffers()) if t.dtype == torch.float32]
    before = [t.data for t in tensors]
    plain = encoder.encode

    def encode(x: Tensor, grid: Grid, taps: Sequence[int] = ()) -> tuple[Tensor, list[Tensor]]:
        with torch.autocast(x.device.type, enabled=False):
            out, inner = plain(x.bfloat16(), grid, taps)
        return out.to(x.dtype), [t.to(x.dtype) for t in inner]

    for tensor in tensors:
        tensor.data = tensor.data.bfloat16()
    try:
        with _encoding(encoder, encode):
            yield
    finally:
        for tensor, data in zip(tensors, before, strict=True):
            tensor.data = data


@contextlib.contextmanager
def _encoding(encoder: FlexiBackbone, encode: Callable[..., tuple[Tensor, list[Tensor]]]) -> Iterator[None]:
    """Another `encode` inside."""
    own = encoder.__dict__.get("encode")
    encoder.encode = encode  # type: ignore[method-assign]
    try:
        yield
    finally:
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
