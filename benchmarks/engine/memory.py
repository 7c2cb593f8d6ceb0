"""Memory: how much was needed, how its end looks, and what to do before a smaller try."""

from __future__ import annotations

import gc
import resource
import sys

import torch

from benchmarks.store.failures import text_of


def is_out_of_memory(error: BaseException) -> bool:
    """True for what devices and the CPU's allocator raise.

    Example: `is_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"))`
    """
    text = text_of(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def free_memory() -> None:
    """Call it outside of `except`: the traceback would keep the failed pass's tensors alive."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_bytes(device: torch.device | str) -> int:
    """The most that was held at once: by tensors on a GPU, by the whole process (its libraries too) on a CPU.

    Example: `peak_bytes("cpu") / 2**20` is in MiB
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
