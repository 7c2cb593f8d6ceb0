"""Out of memory: how it looks, and what to do before a smaller try."""

from __future__ import annotations

import gc

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """True for what devices and the CPU's allocator raise.

    Example: `is_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"))`
    """
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def free_memory() -> None:
    """Call it outside of `except`: the traceback would keep the failed pass's tensors alive."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
