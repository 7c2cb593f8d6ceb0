"""Per-example clipping in one pass beside one pass an example, and beside one batched pass that clips nothing.

    python -m benchmarks.speed.per_example --data-root DATA --data lvis_coco80 --backbone flexivit_nano --grid 15

With `--locked` the text tower is locked and encodes each text once, as `lr_groups: {text: 0.0}` has it; then the ratio
to the same batch under a tower that learns stands beside, both clipped in one pass. Prints a markdown row: milliseconds
an image of the detection task's loss and gradients, and ratios in alternation.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Callable, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from backbones import build_backbone
from backbones.grids import Grid
from benchmarks.cli.errors import run_script
from benchmarks.engine.training.per_example.clipping import ExampleClipping
from benchmarks.engine.training.unused import lock
from benchmarks.speed.throughput import take_turns
from tasks import Batch, Recipe, Task, build_task


def spread(values: Sequence[float]) -> str:
    """Median and quartiles.

    Example: `spread([1, 2, 3, 4, 5])` is "3.00 (2.00-4.00)"
    """
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def furthest(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Largest relative distance of a parameter's gradient, as norms; parameters without gradient must have none."""
    return max(
        float((a - b).norm() / b.norm()) if b.norm() > 0 else float(a.norm())
        for a, b in zip(found, wanted, strict=True)
    )


def ways(
    task: Task, model: nn.Module, batch: Batch, grid: Grid, accelerator: Accelerator
) -> dict[str, Callable[[], list[Tensor]]]:
    """Each way to gradients of a batch, as a call that returns them; the first one clips nothing."""
    from benchmarks.engine.training.loop import TaskStep

    parameters = [p for p in model.parameters() if p.requires_grad]
    step = TaskStep(task, model)
    together = ExampleClipping(task, model, step, 1.0, accelerator, [])
    alone = ExampleClipping(task, model, step, 1.0, accelerator, [])
    alone.together = False

    def taken() -> list[Tensor]:
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        for parameter in parameters:
            parameter.grad = None
        return gradients

    def batched() -> list[Tensor]:
        with accelerator.autocast():
            loss = step(batch, grid)["loss"]
        loss.float().backward()
        return taken()

    def clipped(way: ExampleClipping) -> list[Tensor]:
        way(batch, grid, parameters)
        return taken()

    return {"batched": batched, "one pass": lambda: clipped(together), "a pass an example": lambda: clipped(alone)}


def measure(args: argparse.Namespace) -> str:
    """A row of the table.

    Raises: SystemExit where the gradients of the two ways differ, or one pass was not possible.
    """
    task = build_task(
        "detection", root=args.data_root, options={"data": args.data, "text": args.text, "side": args.side}
    )
    accelerator = Accelerator(cpu=args.device == "cpu", mixed_precision=args.precision)
    torch.manual_seed(0)
    model = task.model(build_backbone(args.backbone, **({} if args.weights else {"pretrained": False})))
    model.to(accelerator.device).train()
    data, random = task.dataset("train"), torch.Generator().manual_seed(0)
    batch = task.collate([(i, *data.sample(i, random)) for i in range(args.batch)]).to(accelerator.device)
    grid = (args.grid, args.grid)
    if args.locked:
        free = copy.deepcopy(model)
        trained = ways(task, free, task.augment(free, batch, random), grid, accelerator)["one pass"]
        lock(model, Recipe(lr_groups={"text": 0.0}))
    calls = ways(task, model, task.augment(model, batch, random), grid, accelerator)
    gap = furthest(calls["one pass"](), calls["a pass an example"]())
    if args.locked:
        calls["trained"] = trained
    times = take_turns(calls, args.turns, accelerator.device)
    gain = (
        [spread([a / b for a, b in zip(times.pop("trained"), times["one pass"], strict=True)])] if args.locked else []
    )
    each = {name: statistics.median(taken) / args.batch * 1e3 for name, taken in times.items()}
    over = {n: spread([a / b for a, b in zip(times[n], times["batched"], strict=True)]) for n in list(times)[1:]}
    name = f"{args.backbone}, text {args.text}{' locked' * args.locked}, {args.data}"
    cells = [
        name,
        f"{args.grid}",
        f"{args.batch}",
        *(f"{each[n]:.2f}" for n in times),
        *over.values(),
        f"{gap:.0e}",
        *gain,
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", default=".", help="folder of the data; scenes are drawn into it")
    parser.add_argument("--data", default="scenes", help="detection data: scenes, lvis_coco80, lvis")
    parser.add_argument("--backbone", default="flexivit_nano")
    parser.add_argument("--weights", action="store_true", help="with the backbone's weights, else as initialised")
    parser.add_argument("--text", default="tiny", help="text tower")
    parser.add_argument("--locked", action="store_true", help="it is not trained, and encodes each text once")
    parser.add_argument("--side", type=int, default=0, help="pixels of the square; 0: the task's")
    parser.add_argument("--grid", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="no", choices=("no", "bf16"))
    args = parser.parse_args()
    if args.device == "cpu":
        torch.set_num_threads(1)
    head = ["what", "grid", "batch", "batched, ms an image", "clipped in one pass, ms", "a pass an example, ms"]
    head += ["one pass / batched (quartiles)", "a pass an example / batched", "gradients differ by"]
    head += ["one pass, tower trained / locked"] if args.locked else []
    print("| " + " | ".join(head) + " |\n|" + " --- |" * len(head))
    print(measure(args))


if __name__ == "__main__":
    run_script(main)
