"""The step `engine`: ViT-B trained at grid 15 as `run` trains it, with the residual stream in float32 and in bfloat16.

Other steps time a model in a bare loop. Here it is the training loop of `run`, with the task upstream on pictures held
on the device: augmentation, loss, clipping and reading of what the steps gave are part of the time. Each way is traced
and compiled beside the cases of the step `throughput`, then timed alone; the rate is that of a training's second half.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from backbones import build_backbone
from backbones.grids import parse_schedule
from benchmarks.cli.errors import run_script
from benchmarks.cost.macs import FORWARD_AND_BACKWARD, macs
from benchmarks.engine.batches.resident import Residents
from benchmarks.engine.suite import changed
from benchmarks.engine.training.loop import finetune
from benchmarks.speed.gpu.options import step_parser
from benchmarks.speed.gpu.throughput import queue
from benchmarks.speed.throughput import PEAK_SIDE, take_turns
from tasks import build_task
from tasks.contract import Task
from tasks.contract.frozen import keep_in_bfloat16

# backbone, pixels a side, grid, pictures of a step, steps that are timed
CASE = ("flexivit_b_scratch", 240, 15, 128, 240)
SMALL = ("flexivit_nano_scratch", 60, 5, 4, 6)
TRACED = 4  # steps of the training that compiles
WAYS = (("float32", True), ("bf16", True), ("float32", False))  # residual stream, compiled


class Timed:
    """A training by one way: `run(steps)` gives pictures a second of each stretch that was read in its second half."""

    def __init__(
        self, task: Task, residual: str, compile: bool, device: torch.device, case: tuple[Any, ...], held: Residents
    ):  # fmt: skip
        self.task, self.residual, self.compile, self.case, self.held = task, residual, compile, case, held
        kind = "bf16" if device.type == "cuda" else "no"
        self.accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision=kind)

    def run(self, steps: int) -> list[float]:
        """Raises: RuntimeError where a compiled way fell back to eager."""
        backbone, _, grid, pictures, _ = self.case
        settings: dict[str, Any] = {"steps": steps, "batch": pictures, "warmup": 0, "ema": 0.0}
        if self.residual != "float32":
            settings["residual"] = self.residual
        recipe = changed(self.task.recipe, settings)
        torch.manual_seed(0)
        model = self.task.in_training().model(build_backbone(backbone)).to(self.accelerator.device)
        if self.accelerator.mixed_precision == "bf16":
            keep_in_bfloat16(model)
        read: list[tuple[float, int]] = []

        def told(step: int, steps: int, rate: float, values: dict[str, float]) -> None:
            read.append((time.perf_counter(), step))

        training = finetune(
            self.task, model, recipe, parse_schedule(str(grid)), self.accelerator, progress=told,
            compile=self.compile, residents=self.held,
        )  # fmt: skip
        if self.compile and not training.compiled:
            raise RuntimeError(f"not compiled: {training.notes}")
        ends = _ends([r for r in read if r[1] > steps // 2])
        return [pictures * (b[1] - a[1]) / (b[0] - a[0]) for a, b in zip(ends, ends[1:], strict=False) if b[0] > a[0]]


def _ends(read: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """The last step of each reading: a GPU's numbers are read for many steps at once, within a millisecond."""
    apart = 1e-3
    return [a for a, b in zip(read, [*read[1:], (float("inf"), 0)], strict=True) if b[0] - a[0] > apart]


def measure(data: Path, out: Path, device: torch.device, small: bool) -> list[dict[str, Any]]:
    """A row for each way: pictures a second (middle, slowest, fastest stretch) and share of the measured bf16 peak."""
    case = SMALL if small else CASE
    backbone, side, grid, pictures, steps = case
    task = build_task(
        "upstream", root=data, options={"preset": "nano", "data": "tinyimagenet100", "image_size": side, "minival": 0.0}
    )
    encoder, lock = build_backbone(backbone), out / "throughput.lock"
    arithmetic = 2 * FORWARD_AND_BACKWARD * macs(encoder, (grid, grid), side)
    ways = [way for way in WAYS if device.type == "cuda" or way == ("float32", False)]
    held = Residents(4.0)
    timed = {way: Timed(task, *way, device, case, held) for way in ways}
    with queue(lock, alone=False):
        for (_, compile), way in timed.items():
            if compile:
                way.run(TRACED)
        (out / "engine.prepared").touch()
    rows = []
    with queue(lock, alone=True):
        square = PEAK_SIDE[device.type]
        matrix = torch.randn(square, square, device=device, dtype=torch.bfloat16)
        peak = 2 * square**3 / statistics.median(take_turns({"matmul": lambda: matrix @ matrix}, 9, device)["matmul"])
        for (residual, compile), way in timed.items():
            rates = way.run(steps)
            middle = statistics.median(rates)
            rows.append({
                "backbone": backbone, "grid": grid, "pictures": pictures, "residual": residual, "compiled": compile,
                "pictures_a_second": round(middle, 1), "spread": [round(min(rates), 1), round(max(rates), 1)],
                "peak_tflops": round(peak / 1e12, 4), "share_of_peak": round(middle * arithmetic / peak, 4),
            })  # fmt: skip
            with (out / "engine.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(markdown(rows[-1:]), flush=True)
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a table, a line a way."""
    lines = ["| model | grid | pictures | residual stream | compiled | pictures/s (slowest-fastest) | share of peak |"]
    lines.append("| --- | ---: | ---: | --- | --- | ---: | ---: |")
    for row in rows:
        low, high = row["spread"]
        told = f"{row['pictures_a_second']:,.0f} ({low:,.0f}-{high:,.0f})"
        cells = [row["backbone"], row["grid"], row["pictures"], row["residual"], "yes" if row["compiled"] else "no"]
        lines.append("| " + " | ".join(map(str, [*cells, told, f"{row['share_of_peak']:.1%}"])) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = step_parser("engine", __doc__, 240)
    parser.add_argument("--data", type=Path, required=True, help="data root with the Tiny ImageNet pack")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "engine.jsonl").unlink(missing_ok=True)
    rows = measure(options.data, options.out, torch.device(options.device), options.small)
    (options.out / "engine.md").write_text(markdown(rows), encoding="utf-8")


if __name__ == "__main__":
    run_script(main)
