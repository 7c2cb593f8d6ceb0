"""The step `throughput`: S, B and L at several grids beside timm, eager and compiled, forward and in training.

Compiling takes minutes and a CPU, timing seconds and the whole GPU: each case is a process of its own, all are prepared
side by side, and none is timed before all are prepared, one at a time (`queue`).
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import fcntl
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones import build_backbone
from backbones.flexible import FlexiBackbone
from backbones.grids import Grid
from backbones.patches import by_convolution, by_product
from benchmarks.cli.errors import run_script
from benchmarks.cost.macs import FORWARD_AND_BACKWARD, macs
from benchmarks.speed.contenders import fixed_vit
from benchmarks.speed.gpu.options import step_parser
from benchmarks.speed.throughput import PEAK_SIDE, take_turns

# size, grid, pictures of a forward pass and of a step; in the order in which they matter
CASES = (
    ("b", 15, 256, 128), ("b", 30, 64, 32), ("b", 8, 512, 256), ("b", 5, 512, 256), ("s", 15, 512, 256),
    ("l", 15, 128, 32), ("s", 30, 128, 64), ("s", 8, 1024, 512), ("l", 8, 256, 64), ("l", 30, 32, 8),
    ("s", 5, 1024, 512), ("l", 5, 512, 128),
)  # fmt: skip
WHOLE = ("b", 15)  # of this case every contender is compiled; of others the fastest of both sides
SMALL = (("nano", 5, 2, 1), ("nano", 8, 2, 1))
TURNS, FEW = 9, 2  # of a trial without a GPU
TIMING = 10.0  # seconds of a case once it is prepared
FACTORS = {"forward": 1, "training": FORWARD_AND_BACKWARD}  # forward passes of a call
TOLERANCE = 0.05  # relative, of bfloat16 against float32


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def compiled(call: Callable[..., Any]) -> Callable[..., Any]:
    """For the shapes of its first call."""
    return torch.compile(call, dynamic=False)


def forwards(encoder: FlexiBackbone, grid: Grid, images: Tensor, whole: bool) -> dict[str, Callable[[], Tensor]]:
    """Calls that give pooled features `[B, D]`, all of the same weights. `bf16`: weights and residual stream too.

    whole: those under autocast as well, which are slower on either side.
    """
    kind = images.device.type
    fixed = fixed_vit(encoder, grid)
    half, fixed_half, pictures = copy.deepcopy(encoder).bfloat16(), copy.deepcopy(fixed).bfloat16(), images.bfloat16()

    def autocast(call: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with torch.autocast(kind, torch.bfloat16):
                return call(images)

        return run

    fast, fixed_fast = copy.deepcopy(half), compiled(fixed_half)
    fast.encode = compiled(fast.encode)
    found = {
        "timm, bf16": lambda: fixed_half(pictures),
        "ours, bf16": lambda: half(pictures, grid).pooled,
        "timm compiled, bf16": lambda: fixed_fast(pictures),
        "ours compiled, bf16": lambda: fast(pictures, grid).pooled,
    }
    if whole:
        found["timm, autocast"] = autocast(fixed)
        found["ours, autocast"] = autocast(lambda x: encoder(x, grid).pooled)
        found["timm compiled, autocast"] = autocast(compiled(fixed))
    return found


def trainings(encoder: FlexiBackbone, grid: Grid, images: Tensor, whole: bool) -> dict[str, Callable[[], None]]:
    """Whole steps: forward, backward, fused AdamW. `bf16 residual`: tokens enter the blocks in bfloat16."""
    ours, lean, fixed, fixed_fast = copy.deepcopy(encoder), copy.deepcopy(encoder), *(
        fixed_vit(encoder, grid) for _ in range(2)
    )  # fmt: skip
    tokens = lean.tokens
    lean.tokens = lambda *given: tokens(*given).bfloat16()
    lean.encode = compiled(lean.encode)
    found = {
        "timm": step(fixed, fixed, images),
        "ours": step(ours, lambda x: ours(x, grid).pooled, images),
        "timm compiled": step(fixed_fast, compiled(fixed_fast), images),
        "ours compiled, bf16 residual": step(lean, lambda x: lean(x, grid).pooled, images),
    }
    if whole:
        fast = copy.deepcopy(encoder)
        fast.encode = compiled(fast.encode)
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


def timed(
    calls: dict[str, Callable[[], object]], pictures: int, device: torch.device, turns: int = TURNS
) -> dict[str, Any]:
    """Pictures a second of each call in interleaved turns, and TFLOP/s of a matrix product in the same turns."""
    side = PEAK_SIDE[device.type]
    matrix = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    times = take_turns({**calls, "matmul": lambda: matrix @ matrix}, turns, device)
    middle = {name: statistics.median(t) for name, t in times.items()}
    spread = {n: [round(pictures / max(t), 1), round(pictures / min(t), 1)] for n, t in times.items() if n != "matmul"}
    return {
        "pictures_a_second": {n: round(pictures / m, 1) for n, m in middle.items() if n != "matmul"}, "spread": spread,
        "peak_tflops": round(2 * side**3 / middle["matmul"] / 1e12, 4),
    }  # fmt: skip


@contextlib.contextmanager
def queue(path: Path, alone: bool) -> Iterator[None]:
    """Hold the GPU together with others, or alone: who asks for it alone waits until nobody else holds it."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


@torch.no_grad()
def case(
    size: str, grid: int, forward: int, training: int, device: torch.device, out: Path, turns: int = TURNS
) -> Iterator[dict[str, Any]]:
    """Rows of one model at one grid: all is prepared beside other cases, then timed alone.

    Raises: ValueError where a contender computes something else.
    """
    lock, began, prepared = out / "throughput.lock", time.monotonic(), []
    with queue(lock, alone=False):
        encoder = build_backbone(f"flexivit_{size}_scratch").to(device).eval()
        encoder._view = {}  # as in a sweep: what was resized is kept; copies have it too
        nn.init.normal_(encoder.trunk.cls_token, std=0.02)
        pair, whole = (grid, grid), (size, grid) == WHOLE
        for what, count in (("forward", forward), ("training", training)):
            images = torch.randn(count, 3, *encoder.image_size, device=device)
            row: dict[str, Any] = {"model": size, "grid": grid, "what": what, "pictures": count}
            row["macs"] = macs(encoder, pair)
            make: Callable[..., dict[str, Callable[[], Any]]] = forwards if what == "forward" else trainings
            calls = make(encoder, pair, images, whole)
            if what == "forward":
                row["difference"] = _differences(calls, encoder(images, pair).pooled)
            else:
                for call in calls.values():
                    call()
                    _free(device)
            prepared.append((row, calls, images))
        (out / f"{size}-{grid}.prepared").touch()
    spent = round(time.monotonic() - began, 1)
    with queue(lock, alone=True):
        for row, calls, images in prepared:
            row |= timed(calls, row["pictures"], device, turns) | {"preparation_seconds": spent}
            scale = 2 * FACTORS[row["what"]] * row["macs"] / (row["peak_tflops"] * 1e12)
            row["share_of_peak"] = {n: round(s * scale, 4) for n, s in row["pictures_a_second"].items()}
            if row["what"] == "forward":
                row["patches_ms"] = patches(encoder, pair, images)
            yield row
            _free(device)


def _differences(calls: dict[str, Callable[[], Tensor]], expected: Tensor) -> dict[str, float]:
    found = {}
    for name, call in calls.items():
        found[name] = round(relative(call(), expected), 5)
        _free(expected.device)
    if wrong := {n: d for n, d in found.items() if not d < TOLERANCE}:
        raise ValueError(f"outputs differ from float32 by {wrong}: nothing was timed")
    return found


def _free(device: torch.device) -> None:
    """Other processes need the memory that this one has only reserved."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


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


def run_case(number: int, options: argparse.Namespace) -> None:
    """One case in this process; its rows go to the file as they are measured."""
    device = torch.device(options.device)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # for timm's convolutions
    chosen, turns = (SMALL[number], FEW) if options.small else (CASES[number], TURNS)
    for row in case(*chosen, device, options.out, turns):
        with (options.out / "throughput.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(markdown([row]), row.get("patches_ms", ""), flush=True)


def run_side_by_side(numbers: range, options: argparse.Namespace, left: Callable[[], float]) -> int:
    """Cases as processes; those that are not prepared in time are ended, so that the others are still timed.

    Returns how many were not measured.
    """
    cases = SMALL if options.small else CASES
    running: dict[int, subprocess.Popen[bytes]] = {}
    for number in numbers:
        again = [sys.executable, "-m", "benchmarks.speed.gpu.throughput", *sys.argv[1:], f"--case={number}"]
        running[number] = subprocess.Popen(again)
    try:
        while any(process.poll() is None for process in running.values()):
            time.sleep(0.2)
            for number, process in running.items():
                size, grid, *_ = cases[number]
                late = left() < TIMING * len(running) and not (options.out / f"{size}-{grid}.prepared").exists()
                if process.poll() is None and (late or left() < 0):
                    print(f"no time for {size} at grid {grid}", flush=True)
                    process.kill()
                    process.wait()
    finally:
        for process in running.values():
            process.kill()
    return sum(process.wait() != 0 for process in running.values())


def main() -> int:
    """Exit status 1 where a case was not measured."""
    parser = step_parser("throughput", __doc__, 300)
    parser.add_argument("--at-once", type=int, default=8, help="cases that are prepared side by side")
    parser.add_argument("--case", type=int, help="this one alone, by its place in the list")
    options = parser.parse_args()
    started = time.monotonic()
    if options.case is not None:
        run_case(options.case, options)
        return 0

    def left() -> float:
        return options.seconds - (time.monotonic() - started)

    cases, rows = SMALL if options.small else CASES, options.out / "throughput.jsonl"
    for old in (rows, *options.out.glob("*.prepared")):
        old.unlink(missing_ok=True)
    lost = 0
    for first in range(0, len(cases), options.at_once):
        if left() < TIMING:
            lost += len(cases) - first
            print(f"no time for {len(cases) - first} more cases", flush=True)
            break
        lost += run_side_by_side(range(first, min(first + options.at_once, len(cases))), options, left)
        if rows.exists():
            found = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
            found.sort(key=lambda row: (row["model"], row["grid"], row["what"]))
            (options.out / "throughput.md").write_text(markdown(found), encoding="utf-8")
    return int(lost > 0)


if __name__ == "__main__":
    run_script(main)
