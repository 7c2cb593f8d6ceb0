"""Latency of a deployed model beside the backbone that it was made of: one picture, one thread.

    python -m benchmarks.speed.deployment

Prints a markdown table. The contenders take turns, and what is told is the median of their processor time, which what
else a machine does changes little.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor

from backbones import build_backbone
from backbones.deploy import deploy
from backbones.deploy.formats import export_model, program
from backbones.deploy.module import relative_error
from backbones.deploy.opened import open_exported
from benchmarks.cli.errors import run_script

NAME, GRIDS, TURNS = "flexivit_nano", (4, 8, 15), 60
CONTENDERS = ("backbone", "plain module", "torch.export", "ONNX Runtime")


def medians_ms(calls: dict[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """Median milliseconds of processor time of each call; they take turns, forwards and backwards."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(turns + 3):
        order = list(calls) if turn % 2 else list(reversed(calls))
        for name in order:
            begin = time.process_time()
            calls[name]()
            if turn >= 3:  # warm
                taken[name].append((time.process_time() - begin) * 1e3)
    return {name: statistics.median(values) for name, values in taken.items()}


@torch.inference_mode()
def measured(grid: int, turns: int = TURNS) -> dict[str, float]:
    """Median milliseconds of each contender at a grid, and `error` of ONNX Runtime's logits.

    Example: `measured(8)["ONNX Runtime"]`
    """
    encoder = build_backbone(NAME).eval().requires_grad_(False)
    images = torch.randint(0, 256, (1, 3, *encoder.image_size), dtype=torch.uint8)
    with torch.inference_mode(False), torch.no_grad():
        model = deploy(encoder, grid)
        exported = program(model).module()
        with tempfile.TemporaryDirectory() as folder:
            graph = open_exported(export_model(model, Path(folder) / "model.onnx"), threads=1)

    def ours() -> Tensor:
        return encoder.head(encoder(images, grid).pooled)

    calls = (ours, lambda: model(images), lambda: exported(images), lambda: graph(images)["logits"])
    error = relative_error(graph(images)["logits"], ours())
    return {**medians_ms(dict(zip(CONTENDERS, calls, strict=True)), turns), "error": error}


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m benchmarks.speed.deployment", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    ).parse_args()
    torch.set_num_threads(1)
    where = f"{platform.machine()} {platform.system()}, one thread"
    print(f"`python -m benchmarks.speed.deployment`, {date.today()}, {where},")
    print(f"torch {torch.__version__}, ONNX Runtime {onnxruntime.__version__}. {NAME}, one uint8 picture of 120 px to")
    print(f"logits, float32; median of {TURNS} turns, milliseconds of processor time.\n")
    print(f"| grid | {' | '.join(CONTENDERS)} | backbone / ONNX Runtime | largest difference of logits |")
    print("|" + " --- |" * (len(CONTENDERS) + 3))
    for grid in GRIDS:
        row = measured(grid)
        times = " | ".join(f"{row[name]:.2f}" for name in CONTENDERS)
        print(f"| {grid} | {times} | {row['backbone'] / row['ONNX Runtime']:.2f}x | {row['error']:.0e} |")


if __name__ == "__main__":
    run_script(main)
