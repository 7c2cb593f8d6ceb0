"""Images a second of a backbone at its grids beside timm's and transformers' models of the same shape."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from backbones.cost import macs
from backbones.flexible import FlexiBackbone
from backbones.grids import Grid
from benchmarks.cost.macs import FORWARD_AND_BACKWARD
from benchmarks.speed.contenders import Contender, build, compiled, eager

WARM_UP = 2
NAMES = ("ours", "timm", "ours compiled", "timm compiled", "transformers")
PEAK_SIDE = {"cpu": 768, "cuda": 8192}  # of the square matrices whose product is the peak


def processor_time(device: torch.device) -> bool:
    """Whether times are processor time: of one thread it leaves out what other programs take."""
    return device.type == "cpu" and torch.get_num_threads() == 1


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1e3
    clock = time.process_time if processor_time(device) else time.perf_counter
    start = clock()
    call()
    return clock() - start


def take_turns(calls: dict[str, Callable[[], object]], turns: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each call in each turn, after a warm-up; the order is reversed every second turn.

    Example: `take_turns({"one": one, "two": two}, 10, torch.device("cpu"))["one"]`
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(turns + WARM_UP):
        for name in list(calls) if turn % 2 else reversed(calls):
            taken = _seconds(calls[name], device)
            if turn >= WARM_UP:
                times[name].append(taken)
    return times


def _ratio(times: dict[str, list[float]], ours: str, theirs: str) -> float | None:
    """Speed of ours over theirs: median of the turns' ratios, so that a drifting machine is fair to both."""
    if ours not in times or theirs not in times:
        return None
    return round(statistics.median(b / a for a, b in zip(times[ours], times[theirs], strict=True)), 3)


def _step(contender: Contender, images: Tensor, gpu: bool) -> Callable[[], None]:
    contender.model.train()
    optimizer = torch.optim.AdamW(contender.model.parameters(), lr=1e-5, fused=gpu or None)

    def step() -> None:
        with torch.enable_grad():
            with torch.autocast(images.device.type, torch.bfloat16, enabled=gpu):
                loss = contender.call(images).float().square().mean()
            loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _peak_bytes(call: Callable[[], object]) -> int:
    """GPU memory of a call above what lay there before."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def kernels(call: Callable[[], object], device: torch.device, most: int = 5) -> str:
    """What ran in a call, by share of its time: GPU kernels by name, on a CPU torch's operators.

    Example: `kernels(lambda: model(images), torch.device("cpu"))` names the attention that was chosen
    """
    from torch.profiler import ProfilerActivity, profile

    gpu = device.type == "cuda"
    activities = [ProfilerActivity.CUDA] if gpu else [ProfilerActivity.CPU]
    with profile(activities=activities) as seen:
        call()
        if gpu:
            torch.cuda.synchronize()
    taken = {e.key: e.self_device_time_total if gpu else e.self_cpu_time_total for e in seen.key_averages()}
    total = sum(taken.values()) or 1
    first = sorted(taken, key=lambda name: -taken[name])[:most]
    if not any("attention" in name for name in first):  # which attention was chosen is always of interest
        first += sorted((n for n in taken if "attention" in n), key=lambda name: -taken[name])[:1]
    return ", ".join(f"{name} {taken[name] / total:.0%}" for name in first)


@torch.no_grad()
def measure(
    encoder: FlexiBackbone,
    grid: Grid,
    batch: int = 32,
    device: str = "cpu",
    *,
    turns: int = 15,
    training: bool = False,
    compile: bool = True,
) -> tuple[dict[str, Any], list[str]]:
    """One row of the table, and notes. Models compute in float32 on a CPU and under bfloat16 autocast on a GPU.

    The row: `grid`, `macs` of an image, `images_per_second` by contender, `ratio` and `ratio_compiled` (ours over
    timm), `latency_ms` of one image, `training_images_per_second`, `peak_share` and `training_peak_share` (of the speed
    of a matrix product measured in the same run; a step is three forward passes), `peak_bytes` (GPU only).

    Raises: ValueError for a grid that does not divide, a backbone that is no timm ViT, or outputs that differ.

    Example: `measure(build_backbone("flexivit_nano"), (8, 8), compile=False)[0]["ratio"]`
    """
    where = torch.device(device)
    gpu = where.type == "cuda"
    encoder = encoder.to(where).eval()
    images = torch.randn(batch, 3, *getattr(encoder, "image_size", (1, 1)), device=where)
    contenders, notes = build(encoder, grid, images, compile)
    side = PEAK_SIDE[where.type]
    matrix = torch.randn(side, side, device=where, dtype=torch.bfloat16 if gpu else torch.float32)
    with torch.autocast(where.type, torch.bfloat16, enabled=gpu):
        calls: dict[str, Callable[[], object]] = {c.name: lambda c=c: c.call(images) for c in contenders}
        times = take_turns({**calls, "matmul": lambda: matrix @ matrix}, turns, where)
        first = {c.name: lambda c=c: c.call(images[:1]) for c in contenders[:2]}
        latency = take_turns(first, turns, where)
        peak = _peak_bytes(calls["ours"]) if gpu else None
        notes.append(f"grid {grid[0]}, what ran in ours by time: {kernels(calls['ours'], where)}")
    middle = {name: statistics.median(taken) for name, taken in times.items()}
    multiply_adds = macs(encoder, grid)
    row: dict[str, Any] = {
        "grid": grid[0],
        "macs": multiply_adds,
        "images_per_second": {n: round(batch / middle[n], 2) for n in NAMES if n in middle},
        "ratio": _ratio(times, "ours", "timm"),
        "ratio_compiled": _ratio(times, "ours compiled", "timm compiled"),
        "latency_ms": {n: round(statistics.median(taken) * 1e3, 3) for n, taken in latency.items()},
        "peak_share": {
            n: round(multiply_adds * batch / middle[n] / (side**3 / middle["matmul"]), 3) for n in NAMES if n in middle
        },
        "peak_bytes": peak,
    }
    if training:
        pairs = [*eager(encoder, grid), *(compiled(encoder, grid) if "ours compiled" in middle else [])]
        times = take_turns({c.name: _step(c, images, gpu) for c in pairs}, turns, where)
        row["training_images_per_second"] = {n: round(batch / statistics.median(t), 2) for n, t in times.items()}
        row["ratio_training"] = _ratio(times, "ours", "timm")
        row["ratio_training_compiled"] = _ratio(times, "ours compiled", "timm compiled")
        row["training_peak_share"] = {
            n: round(FORWARD_AND_BACKWARD * multiply_adds * speed / (side**3 / middle["matmul"]), 3)
            for n, speed in row["training_images_per_second"].items()
        }
    return row, notes


def conditions(encoder: FlexiBackbone, device: str) -> list[str]:
    """What the numbers hold for: threads, clock, precision, attention, inputs.

    Example: `conditions(build_backbone("flexivit_nano"), "cpu")[0]`
    """
    where = torch.device(device)
    gpu = where.type == "cuda"
    fused = getattr(encoder.trunk.blocks[0].attn, "fused_attn", False)
    precision = "bfloat16 autocast" if gpu else "float32"
    clock = "CUDA events" if gpu else "processor time" if processor_time(where) else "wall clock"
    return [
        f"threads: {torch.get_num_threads()}; {clock}, median of interleaved turns after {WARM_UP} warm-up turns; "
        "a ratio is the median of the turns' ratios, above 1 where ours is faster; ratios count, other "
        "programs shift the rest",
        f"{precision}; fused attention in timm's blocks (both): {'on' if fused else 'off'}",
        "input is normalised float on the device; ours and timm: equal weights, equal outputs before timing",
        "transformers: `ViTModel` of the same configuration with random weights, its default attention",
        f"share of peak: against a product of {PEAK_SIDE[where.type]}-sided matrices in the same turns, {precision}",
        "peak memory: of ours, one forward, above what lay on the GPU before"
        if gpu
        else "peak memory: measured on a GPU only",
    ]


def _cell(value: Any, form: str = "{}") -> str:
    return "" if value is None else form.format(value)


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a markdown table; an empty cell was not measured.

    Example: `print(markdown([measure(encoder, (8, 8))[0]]))`
    """
    training = any("training_images_per_second" in r for r in rows)
    head = ["grid", "MACs, M", *(f"{n}, images/s" for n in NAMES), "ours / timm", "compiled: ours / timm"]
    head += ["batch 1: ours, ms", "timm, ms"]
    steps = [n for n in NAMES if any(n in r.get("training_images_per_second", {}) for r in rows)]
    head += [f"training: {n}, images/s" for n in steps]
    head += ["training: ours / timm", "training, compiled: ours / timm"] if training else []
    head += ["share of peak: ours", "timm", *(["training: ours", "timm"] if training else []), "peak memory, MiB"]
    lines = ["| " + " | ".join(head) + " |", "|" + " ---: |" * len(head)]
    for row in rows:
        speed, late, trained = row["images_per_second"], row["latency_ms"], row.get("training_images_per_second", {})
        cells = [str(row["grid"]), f"{row['macs'] / 1e6:.0f}", *(_cell(speed.get(n), "{:.1f}") for n in NAMES)]
        cells += [_cell(row["ratio"], "{:.2f}"), _cell(row["ratio_compiled"], "{:.2f}")]
        cells += [_cell(late[n], "{:.2f}") for n in ("ours", "timm")]
        if training:
            cells += [_cell(trained.get(n), "{:.1f}") for n in steps]
            cells += [_cell(row.get(k), "{:.2f}") for k in ("ratio_training", "ratio_training_compiled")]
        for shares in (row["peak_share"], *([row.get("training_peak_share", {})] if training else [])):
            cells += [_cell(shares.get(n), "{:.0%}") for n in ("ours", "timm")]
        cells += [_cell(row["peak_bytes"] and row["peak_bytes"] / 2**20, "{:.0f}")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
