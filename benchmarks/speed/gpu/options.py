"""What the steps of `python -m benchmarks.speed.gpu` are asked: where to write, on what, for how long."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path


def device(name: str) -> str:
    """cuda or cpu, as an option's type.

    Raises: ArgumentTypeError for another name, and for cuda where this torch sees no GPU.

    Example: `device("cpu")` is "cpu"
    """
    if name not in ("cuda", "cpu"):
        raise argparse.ArgumentTypeError(f"no device {name!r}; there are: cuda, cpu")
    if name == "cuda" and importlib.util.find_spec("torch"):
        import torch

        if not torch.cuda.is_available():
            raise argparse.ArgumentTypeError("this torch sees no GPU; --device cpu --small is a trial without one")
    return name


def step_parser(step: str, description: str | None, seconds: float, small: bool = True) -> argparse.ArgumentParser:
    """Options that all steps have.

    Args: seconds: the step's time, by default. small: whether it has a trial without a GPU.

    Example: `step_parser("sweep", __doc__, 60).parse_args(["--out", "results/runs/gpu"]).seconds` is 60
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.speed.gpu.{step}", description=description)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", type=device, default="cuda", help="cuda or cpu")
    parser.add_argument("--seconds", type=float, default=seconds)
    if small:
        parser.add_argument("--small", action="store_true", help="nano models, a trial without a GPU")
    return parser
