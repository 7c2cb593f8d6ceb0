"""How to run, and on what: nothing of it is part of a suite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.contract import TaskError

if TYPE_CHECKING:  # what a run was asked for is read without it
    import torch
    from accelerate import Accelerator

LIMIT_GIB = 2.0  # of pictures that are held where the model computes


@dataclass(frozen=True)
class RunOptions:
    """How to run, nothing of what.

    Args:
        device: cpu or cuda; empty: cuda where there is one.
        precision: no (float32) or bf16; empty: bf16 on a GPU that has it, else float32.
        every_seconds: between checkpoints.
        batch: images decoded at once in evaluation; None: what `evaluation_batch` says.
        token_budget: tokens of a forward pass; None: no limit on a CPU, 57,600 on a GPU.
        workers: processes that decode; None: as many as `decoding_processes` says.
        compile: torch.compile the training step; None: on a GPU, where a training is long enough (`compiles`).
        trackers: names of accelerate's trackers that get values of training and evaluation.
        skip_broken: pass over pictures that cannot be read, and count them.
        limit: samples of each split that are evaluated, for a smoke test; such rows are marked. None: all of them.
        resident_gib: memory of the device that training pictures may take which are held there; 0: none are.
        eval_weights: of the backbone in evaluation, float32 or bf16; empty: what `evaluation_weights` says.
    """

    device: str = ""
    precision: str = ""
    every_seconds: float = 60.0
    batch: int | None = None
    token_budget: int | None = None
    workers: int | None = None
    compile: bool | None = None
    trackers: tuple[str, ...] = ()
    skip_broken: bool = False
    resident_gib: float = LIMIT_GIB
    limit: int | None = None
    eval_weights: str = ""


def evaluation_batch(device: torch.device, side: int) -> int:
    """Images decoded at once where nothing is asked: 64; on a GPU 512 of 240 pixels a side, fewer of larger ones.

    A GPU has little to do with 64 pictures at a coarse grid; the token budget cuts what is too much at a fine one.

    Example: `evaluation_batch(torch.device("cuda"), 480)` is 128
    """
    if device.type != "cuda":
        return 64
    return max(16, min(512, 512 * 240**2 // max(side, 1) ** 2))


def joined_pictures(side: int) -> int:
    """Pictures that batches are joined to where a budget has room for more: 2,048 of 240 pixels a side, fewer of larger
    ones, because they wait where the model computes.

    Example: `joined_pictures(480)` is 512
    """
    return max(64, min(2048, 2048 * 240**2 // max(side, 1) ** 2))


def token_limit(device: torch.device, asked: int | None) -> int | None:
    """Tokens of a forward pass: as asked, else all on a CPU and 256 pictures at grid 15 on a GPU."""
    return asked or (57_600 if device.type == "cuda" else None)


def evaluation_weights(device: str, precision: str, asked: str = "") -> str:
    """Weights and residual stream of the backbone in evaluation, `float32` or `bf16`: part of a row's key where bf16.

    By default bf16 on a GPU whose precision is bf16, where autocast rounds every product already; else float32.

    Args: device: its name, such as cpu or cuda:1. precision: bf16; or no or float32.

    Raises: TaskError for other weights than these.

    Example: `evaluation_weights("cuda", "bf16") == "bf16"` and `evaluation_weights("cpu", "bf16") == "float32"`
    """
    if asked not in ("", "float32", "bf16"):
        raise TaskError(f"no weights {asked!r} in evaluation; there are: float32, bf16")
    usual = "bf16" if not device.startswith("cpu") and precision == "bf16" else "float32"
    return asked or usual


def build_accelerator(options: RunOptions) -> Accelerator:
    """The device and precision of this process; a precision that the device lacks is said, not swapped silently.

    Raises: TaskError where a GPU is asked for and none is there.
    """
    import torch
    from accelerate import Accelerator

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device not in ("cpu", "cuda"):
        raise TaskError(f"no device {device!r}; there are: cpu, cuda (choose GPUs by CUDA_VISIBLE_DEVICES)")
    if device == "cuda" and not torch.cuda.is_available():
        raise TaskError("device cuda: this torch sees no GPU; use --device cpu")
    precision = options.precision or ("bf16" if device == "cuda" and torch.cuda.is_bf16_supported() else "no")
    if precision not in ("no", "bf16", "fp16"):
        raise TaskError(f"no precision {precision!r}; there are: no, bf16, fp16")
    if precision == "fp16":
        raise TaskError("precision fp16 needs loss scaling, which the loop does not do; use bf16 or no")
    return Accelerator(cpu=device == "cpu", mixed_precision=precision)
