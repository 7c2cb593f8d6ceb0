"""The step `throughput`: S, B and L at several grids beside timm, eager and compiled, forward and in training."""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones import build_backbone
from backbones.flexible import FlexiBackbone
from backbones.grids import Grid
from backbones.patches import by_convolution, by_product
from benchmarks.cost.macs import FORWARD_AND_BACKWARD, macs
from benchmarks.speed.contenders import fixed_vit
from benchmarks.speed.throughput import PEAK_SIDE, take_turns

# size, grid, pictures of a forward pass and of a step; in the order in which they matter
CASES = (
    ("b", 15, 256, 128), ("b", 30, 64, 32), ("b", 8, 512, 256), ("b", 5, 512, 256), ("s", 15, 512, 256),
    ("l", 15, 128, 64), ("s", 30, 128, 64), ("s", 8, 1024, 512), ("l", 8, 256, 128), ("l", 30, 32, 16),
)  # fmt: skip
SMALL = (("nano", 8, 8, 4), ("nano", 15, 4, 2))
TURNS = 9
TOLERANCE = 0.05  # relative, of bfloat16 against float32


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def compiled(call: Callable[..., Any]) -> Callable[..., Any]:
    """For the shapes of its first call."""
    return torch.compile(call, dynamic=False)


def forwards(encoder: FlexiBackbone, grid: Grid, images: Tensor, compile: bool) -> dict[str, Callable[[], Tensor]]:
    """Calls that give pooled features `[B, D]`, all of the same weights. `bf16`: weights and residual stream too."""
    kind = images.device.type
    fixed = fixed_vit(encoder, grid)
    half, fixed_half, pictures = copy.deepcopy(encoder).bfloat16(), copy.deepcopy(fixed).bfloat16(), images.bfloat16()

    def autocast(call: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with torch.autocast(kind, torch.bfloat16):
                return call(images)

        return run

    found = {
        "timm, autocast": autocast(fixed),
        "ours, autocast": autocast(lambda x: encoder(x, grid).pooled),
        "timm, bf16": lambda: fixed_half(pictures),
        "ours, bf16": lambda: half(pictures, grid).pooled,
    }
    if compile:
        torch._dynamo.reset()
        fast = copy.deepcopy(half)
        fast.encode = compiled(fast.encode)
        found["ours compiled, bf16"] = lambda: fast(pictures, grid).pooled
        found["timm compiled, autocast"] = autocast(compiled(fixed))
        fixed_fast = compiled(fixed_half)
        found["timm compiled, bf16"] = lambda: fixed_fast(pictures)
    return found


def trainings(encoder: FlexiBackbone, grid: Grid, images: Tensor, compile: bool) -> dict[str, Callable[[], None]]:
    """Whole steps: forward, backward, fused AdamW. `bf16 residual`: tokens enter the blocks in bfloat16."""
    ours, lean, fixed = copy.deepcopy(encoder), copy.deepcopy(encoder), fixed_vit(encoder, grid)
    tokens = lean.tokens
    lean.tokens = lambda *given: tokens(*given).bfloat16()
    found = {"timm": step(fixed, fixed, images), "ours": step(ours, lambda x: ours(x, grid).pooled, images)}
    if compile:
        torch._dynamo.reset()
        fast, fixed_fast = copy.deepcopy(encoder), fixed_vit(encoder, grid)
        fast.encode = compiled(fast.encode)
        lean.encode = compiled(lean.encode)
        found["ours compiled, bf16 residual"] = step(lean, lambda x: lean(x, grid).pooled, images)
        found["timm compiled"] = step(fixed_fast, compiled(fixed_fast), images)
        found["ours compiled"] = step(fast, lambda x: fast(x, grid).pooled, images)
    return found


def step(model: nn.Module, call: Callable[[Tensor], Tensor], images: Tensor) -> Callable[[], None]:
    """A step under bfloat16 autocast on weights in float32."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def run() -> None:
        with torch.enable_grad():
            with torch.autocast(images.device.type, torch.bfloat16):
                loss = call(images).float().square().mean()
            loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return run


def timed(calls: dict[str, Callable[[], object]], pictures: int, device: torch.device) -> dict[str, Any]:
    """Pictures a second of each call in interleaved turns, and TFLOP/s of a matrix product in the same turns."""
    side = PEAK_SIDE[device.type]
    matrix = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    times = take_turns({**calls, "matmul": lambda: matrix @ matrix}, TURNS, device)
    middle = {name: statistics.median(t) for name, t in times.items()}
    spread = {n: [round(pictures / max(t), 1), round(pictures / min(t), 1)] for n, t in times.items() if n != "matmul"}
    return {
        "pictures_a_second": {n: round(pictures / m, 1) for n, m in middle.items() if n != "matmul"}, "spread": spread,
        "peak_tflops": round(2 * side**3 / middle["matmul"] / 1e12, 1),
    }  # fmt: skip


@torch.no_grad()
def case(size: str, grid: int, forward: int, training: int, device: torch.device, left: Callable[[], float]) -> Any:
    """Rows of one model at one grid as they are measured; what there is no time for is left out."""
    encoder = build_backbone(f"flexivit_{size}_scratch").to(device).eval()
    encoder._view = {}  # as in a sweep: what was resized is kept; copies have it too
    nn.init.normal_(encoder.trunk.cls_token, std=0.02)
    pair, compile = (grid, grid), True
    multiply_adds = macs(encoder, pair)
    for what, count, factor in (("forward", forward, 1), ("training", training, FORWARD_AND_BACKWARD)):
        images = torch.randn(count, 3, *encoder.image_size, device=device)
        began = time.monotonic()
        if what == "forward":
            calls: dict[str, Callable[[], Any]] = forwards(encoder, pair, images, compile)
            expected = encoder(images, pair).pooled
            differences = {name: relative(call(), expected) for name, call in calls.items()}
            if wrong := {n: d for n, d in differences.items() if not d < TOLERANCE}:
                raise ValueError(f"outputs differ from float32 by {wrong}: nothing was timed")
        else:
            if left() < 1.5 * (time.monotonic() - began) + 20:
                return
            calls = trainings(encoder, pair, images, compile)
            for call in calls.values():
                call()
        prepared = time.monotonic() - began
        row = {"model": size, "grid": grid, "what": what, "pictures": count, "macs": multiply_adds}
        row |= timed(calls, count, device) | {"preparation_seconds": round(prepared, 1)}
        scale = 2 * factor * multiply_adds / (row["peak_tflops"] * 1e12)
        row["share_of_peak"] = {n: round(s * scale, 4) for n, s in row["pictures_a_second"].items()}
        if what == "forward":
            row["difference"] = {n: round(d, 5) for n, d in differences.items()}
            row["patches_ms"] = patches(encoder, pair, images)
        yield row
        del calls
        torch._dynamo.reset()


def patches(encoder: FlexiBackbone, grid: Grid, images: Tensor) -> dict[str, float]:
    """Milliseconds of the patch embedding and its gradient, as a convolution and as a product."""
    kernel = encoder.resized(tuple(s // g for s, g in zip(encoder.image_size, grid, strict=True)), grid, "pi")[0]
    kernel = kernel.detach().requires_grad_()

    def run(embed: Callable[..., Tensor]) -> Callable[[], None]:
        def call() -> None:
            with torch.enable_grad(), torch.autocast(images.device.type, torch.bfloat16):
                embed(images, kernel, None).float().sum().backward()

        return call

    times = take_turns({"convolution": run(by_convolution), "product": run(by_product)}, 5, images.device)
    return {name: round(1e3 * statistics.median(t), 3) for name, t in times.items()}


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a table, a line a contender; ratios are to timm compiled of the same line's kind."""
    lines = ["| model | grid | what | contender | pictures/s | share of peak | against timm compiled |"]
    lines.append("| --- | ---: | --- | --- | ---: | ---: | ---: |")
    for row in rows:
        speed = row["pictures_a_second"]
        base = max((s for n, s in speed.items() if n.startswith("timm compiled")), default=None)
        for name, value in speed.items():
            ratio = f"{value / base:.2f}" if base else ""
            share = f"{row['share_of_peak'][name]:.1%}"
            lines.append(
                f"| {row['model']} | {row['grid']} | {row['what']} | {name} | {value:.0f} | {share} | {ratio} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.gpu.throughput", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    device, started, rows = torch.device(options.device), time.monotonic(), []

    def left() -> float:
        return options.seconds - (time.monotonic() - started)

    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # for timm's convolutions
    longest = 0.0
    for size, grid, forward, training in SMALL if options.small else CASES:
        begun = time.monotonic()
        if left() < max(10.0, 0.6 * longest):
            print(f"no time for {size} at grid {grid} and what follows", flush=True)
            break
        try:
            for row in case(size, grid, forward, training, device, left):
                rows.append(row)
                with (options.out / "throughput.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                (options.out / "throughput.md").write_text(markdown(rows), encoding="utf-8")
                print(markdown([row]), row.get("patches_ms", ""), flush=True)
        except Exception as error:  # the other cases still count
            print(f"{size} at grid {grid}: {type(error).__name__}: {str(error).splitlines()[0][:300]}", flush=True)
        longest = max(longest, time.monotonic() - begun)
        if device.type == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
