"""Ten resized kernels of a B model against timm's resampler, and a cached grid against the plain timm trunk.

    python -m benchmarks.speed.resize

Prints a markdown table; ratios of one run are what counts, over the fastest of many turns.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from datetime import date

import timm
import torch
from timm.layers.patch_embed import resample_patch_embed
from timm.models.vision_transformer import VisionTransformer

from backbones.contract import Normalisation
from backbones.flexible import FlexiBackbone
from backbones.grids import NANO_GRIDS, PAPER_GRIDS
from backbones.resize import _pseudo_inverse, interpolation_matrix, resize_patch_kernel
from benchmarks.cli.errors import run_script


def fastest_ms(*calls: Callable[[], object], repeats: int) -> list[float]:
    """Fastest milliseconds of each call; they take turns, so that a drifting machine is fair to all.

    The fastest, and processor time of one thread, because what else a machine does only ever adds time.
    """
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(repeats + 1):
        pairs = list(zip(calls, times, strict=True))
        for call, taken in pairs if turn % 2 else reversed(pairs):  # nor does one always find the other's warm memory
            start = time.process_time()
            call()
            if turn:  # the first turn warms up
                taken.append((time.process_time() - start) * 1e3)
    return [min(t) for t in times]


def kernels() -> list[str]:
    """Rows: all ten kernels, once with pseudo-inverses built anew and once with them at hand."""
    kernel, patches = torch.randn(768, 3, 32, 32), [240 // g for g in PAPER_GRIDS]

    def ours() -> None:
        for patch in patches:
            resize_patch_kernel(kernel, patch)

    def ours_cold() -> None:
        _pseudo_inverse.cache_clear()
        interpolation_matrix.cache_clear()
        ours()

    def theirs() -> None:
        for patch in patches:
            resample_patch_embed(kernel, [patch, patch], interpolation="bilinear", antialias=False)

    cold, warm, other = fastest_ms(ours_cold, ours, theirs, repeats=5)
    return [
        f"| ten kernels, pseudo-inverses built anew | {cold:.1f} | {other:.1f} | {other / cold:.1f}x |",
        f"| ten kernels, pseudo-inverses cached | {warm:.1f} | {other:.1f} | {other / warm:.1f}x |",
    ]


def forwards() -> list[str]:
    """Rows: our encoder at a cached grid, and the same timm trunk built for that grid alone."""
    rows = []
    sizes = {"img_size": 224, "patch_size": 32, "embed_dim": 128, "depth": 6, "num_heads": 4, "num_classes": 0}
    flexible = FlexiBackbone(VisionTransformer(**sizes), Normalisation((0.5,) * 3, (0.5,) * 3)).eval()
    images = torch.randn(16, 3, 120, 120)
    for grid in NANO_GRIDS:
        fixed = VisionTransformer(**{**sizes, "img_size": 120, "patch_size": 120 // grid}).eval()
        # the same weights in the same memory, so that only the resizing can differ
        fixed.blocks, fixed.norm = flexible.trunk.blocks, flexible.trunk.norm
        # weights made inside of inference mode have no version, and a cache could not tell when they change
        with torch.inference_mode():
            ours, theirs = fastest_ms(
                lambda grid=grid: flexible(images, grid), lambda fixed=fixed: fixed(images), repeats=100
            )
        rows.append(
            f"| nano forward, batch 16, cached grid {grid} | {ours:.1f} | {theirs:.1f} | {theirs / ours:.2f}x |"
        )
    return rows


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m benchmarks.speed.resize", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    ).parse_args()
    torch.set_num_threads(1)
    print(f"`python -m benchmarks.speed.resize`, {date.today()}, {platform.machine()} {platform.system()},")
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, timm {timm.__version__}\n")
    print("| what | ours, ms | timm, ms | timm / ours |\n| --- | --- | --- | --- |")
    print("\n".join(kernels() + forwards()))


if __name__ == "__main__":
    run_script(main)
