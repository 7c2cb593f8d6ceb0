"""The step `sweep`: one model at ten grids, in one pass over the pictures and in ten passes."""

from __future__ import annotations

import copy
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from backbones import build_backbone
from backbones.flexible import FlexiBackbone
from backbones.grids import NANO_GRIDS, PAPER_GRIDS
from benchmarks.cli.errors import run_script
from benchmarks.speed.gpu.options import step_parser
from benchmarks.speed.throughput import take_turns

PICTURES = 2048
TOKENS = 57_600  # of a forward pass


def pass_over(encoder: FlexiBackbone, pictures: Tensor, grids: list[int], device: torch.device, half: bool) -> float:
    """Pictures in pinned memory through the model at each of `grids`: uint8 moved and normalised once a pass.

    Returns the sum of what came out, so that nothing is left out.
    """
    total = torch.zeros((), device=device)
    for start in range(0, len(pictures), 512):
        images = encoder.normalise(pictures[start : start + 512].to(device, non_blocking=True))
        images = images.bfloat16() if half else images
        for grid in grids:
            for piece in images.split(max(1, TOKENS // grid**2)):
                total += encoder(piece, grid).pooled.float().sum()
    return float(total)


def main() -> None:
    options = step_parser("sweep", __doc__, 60).parse_args()
    device, started = torch.device(options.device), time.monotonic()
    names = ("nano",) if options.small else ("s", "b")
    grids = list(NANO_GRIDS if options.small else PAPER_GRIDS)
    lines = ["| model | weights | one pass, s | ten passes, s | ratio |", "| --- | --- | ---: | ---: | ---: |"]
    for name in names:
        encoder = build_backbone(f"flexivit_{name}_scratch").to(device).eval()
        count = 32 if options.small else PICTURES
        pictures = torch.randint(0, 256, (count, 3, *encoder.image_size), dtype=torch.uint8)
        pictures = pictures.pin_memory() if device.type == "cuda" else pictures
        for half in (False, True):
            model = copy.deepcopy(encoder)
            if half:
                model.trunk.bfloat16()
            calls: dict[str, Callable[[], object]] = {
                "one": lambda m=model, p=pictures, h=half: pass_over(m, p, grids, device, h),
                "ten": lambda m=model, p=pictures, h=half: [pass_over(m, p, [g], device, h) for g in grids],
            }
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=not half):
                times = take_turns(calls, 3, device)
            one, ten = (statistics.median(times[k]) for k in ("one", "ten"))
            kind = "bfloat16" if half else "float32, autocast"
            lines.append(f"| {name} | {kind} | {one:.3f} | {ten:.3f} | {ten / one:.2f} |")
            row = {"model": name, "weights": kind, "pictures": count, "grids": grids, "one": one, "ten": ten}
            with (options.out / "sweep.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            (options.out / "sweep.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
            print(lines[-1], flush=True)
        if time.monotonic() - started > 0.6 * options.seconds:
            break


if __name__ == "__main__":
    run_script(main)
