"""The step `detection`: gradients of OWL-ViT's recipe, clipped for each example, as a share of the GPU's peak.

ViT-B with its text tower at 720 px, patches 30 and 16, on drawn scenes: one batched pass that clips nothing, clipping
in one pass over many examples, and a pass an example. Arithmetic is that of the batched pass, as torch counts it.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from backbones import build_backbone
from benchmarks.cli.errors import run_script
from benchmarks.engine.memory import free_memory, is_out_of_memory
from benchmarks.engine.training.per_example.clipping import MOST_EXAMPLES
from benchmarks.speed.gpu.options import step_parser
from benchmarks.speed.per_example import furthest, spread, ways
from benchmarks.speed.throughput import PEAK_SIDE, take_turns
from tasks import build_task

ALONE = 4  # examples of a pass an example: each costs the same
# backbone, text tower, pixels a side, patch, examples, turns. As many examples as a pass of training takes: with few,
# the time is that of the host's launches
CASES = (
    ("flexivit_b_scratch", "ViT-B-16-quickgelu", 720, 30, MOST_EXAMPLES, 5),
    ("flexivit_b_scratch", "ViT-B-16-quickgelu", 720, 16, MOST_EXAMPLES, 3),
)
SMALL = (("flexivit_nano", "tiny", 120, 15, 2, 2),)


def launches(call: Callable[[], object], device: torch.device) -> dict[str, int]:
    """Kernels that a call launches, and how often it waits for the device; nothing on a CPU."""
    if device.type != "cuda":
        return {}
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        call()
        torch.cuda.synchronize()
    count = sum(e.count for e in seen.key_averages() if e.device_type == DeviceType.CUDA)
    with warnings.catch_warnings(record=True) as waited:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return {"kernels": count, "waits": sum("synchroniz" in str(w.message) for w in waited)}


def measure(
    backbone: str, text: str, side: int, patch: int, count: int, turns: int, device: torch.device
) -> dict[str, Any]:
    """A row: examples a second and share of the peak of each way, in interleaved turns."""
    with tempfile.TemporaryDirectory() as root:
        task = build_task("detection", root=root, options={"data": "scenes", "text": text, "side": side})
        data, random = task.dataset("train"), torch.Generator().manual_seed(0)
        batch = task.collate([(i, *data.sample(i % len(data), random)) for i in range(count)]).to(device)
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="bf16" if device.type == "cuda" else "no")
    torch.manual_seed(0)
    model = task.model(build_backbone(backbone, pretrained=False)).to(device).train()
    grid, shown = (side // patch, side // patch), task.augment(model, batch, random)
    few = shown[:ALONE]
    alone = ways(task, model, few, grid, accelerator)
    gap = furthest(alone["one pass"](), alone["a pass an example"]())
    calls: dict[str, Callable[[], Any]] = dict(ways(task, model, shown, grid, accelerator))
    calls["a pass an example"] = alone["a pass an example"]
    counts = dict.fromkeys(calls, count) | {"a pass an example": len(few)}
    with FlopCounterMode(display=False) as counted:
        calls["batched"]()
    arithmetic = counted.get_total_flops() / count
    row = {
        "backbone": backbone, "text": text, "side": side, "patch": patch, "examples": count,
        "tflop_an_example": round(arithmetic / 1e12, 4), "gap": gap,
        "launches": {name: launches(call, device) for name, call in calls.items()},
    }  # fmt: skip
    square = PEAK_SIDE[device.type]
    matrix = torch.randn(square, square, device=device, dtype=torch.bfloat16)
    times = take_turns({**calls, "matmul": lambda: matrix @ matrix}, turns, device)
    peak = 2 * square**3 / statistics.median(times.pop("matmul"))
    each = {name: [t / counts[name] for t in taken] for name, taken in times.items()}
    rates = {name: 1 / statistics.median(taken) for name, taken in each.items()}
    row["peak_tflops"] = round(peak / 1e12, 4)
    row["examples_a_second"] = {name: round(rate, 1) for name, rate in rates.items()}
    row["share_of_peak"] = {name: round(arithmetic * rate / peak, 4) for name, rate in rates.items()}
    row["against_batched"] = {n: spread([a / b for a, b in zip(each[n], each["batched"], strict=True)]) for n in each}
    return row


def _within_memory(case: tuple[Any, ...], device: torch.device) -> dict[str, Any]:
    """A row of as many examples of the case as the memory holds."""
    *shape, count, turns = case
    while True:
        try:
            return measure(*shape, count, turns, device)
        except RuntimeError as error:
            if not is_out_of_memory(error) or count == 1:
                raise
        count //= 2
        print(f"out of memory at patch {case[3]}: {count} examples instead", flush=True)
        free_memory()


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a table, a line a way."""
    head = ["model", "patch", "examples", "way", "examples/s", "share of peak", "time / batched", "kernels", "waits"]
    lines = ["| " + " | ".join(head) + " |", "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |"]
    for row in rows:
        for name, rate in row["examples_a_second"].items():
            told = row["launches"][name]
            cells = [row["backbone"], row["patch"], row["examples"], name, rate, f"{row['share_of_peak'][name]:.1%}"]
            cells += [row["against_batched"][name], told.get("kernels", ""), told.get("waits", "")]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    options = step_parser("detection", __doc__, 90).parse_args()
    started, rows, longest = time.monotonic(), [], 0.0
    for case in SMALL if options.small else CASES:
        begun = time.monotonic()
        if options.seconds - (begun - started) < longest:
            print(f"no time for patch {case[3]}", flush=True)
            break
        rows.append(_within_memory(case, torch.device(options.device)))
        with (options.out / "detection.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        (options.out / "detection.md").write_text(markdown(rows), encoding="utf-8")
        print(markdown(rows[-1:]), flush=True)
        longest = time.monotonic() - begun


if __name__ == "__main__":
    run_script(main)
