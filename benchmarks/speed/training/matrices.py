"""Training steps with block matrices in bfloat16 (`recipe.matrices: bf16`) beside float32, by processor time.

    python -m benchmarks.speed.training.matrices --backbone flexivit_nano --grids 5 8 15

Prints markdown rows: milliseconds a step of a classification head and the backbone with fused AdamW, and ratios of
steps taken in alternation.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from backbones import build_backbone
from backbones.grids import Grid
from benchmarks.cli.errors import run_script
from benchmarks.engine.training.matrices import block_matrices
from benchmarks.engine.training.optimizers import build_optimizer, clip_gradients
from benchmarks.speed.per_example import spread
from benchmarks.speed.throughput import take_turns
from tasks.contract import Recipe

CLASSES = 100
HEAD = ("backbone", "grid", "batch", "float32, ms a step", "bf16 matrices, ms", "ratio (quartiles)", "gradients differ")


class Classifier(nn.Module):
    """A backbone and a linear head."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(backbone.embed_dim, CLASSES)

    def forward(self, images: torch.Tensor, grid: Grid) -> torch.Tensor:
        """Logits [B, CLASSES]."""
        return self.head(self.backbone(images, grid).pooled)


def steps(model: Classifier, kind: str, images: torch.Tensor, labels: torch.Tensor, grid: Grid) -> Callable[[], float]:
    """A step of training on one batch, with the block matrices of `kind`; it gives the norm of all gradients."""
    recipe = Recipe(steps=1, lr=1e-3, optimizer="adamw", matrices=kind)
    optimizer = build_optimizer(model, recipe)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def step() -> float:
        with block_matrices(model, recipe.matrices):
            F.cross_entropy(model(images, grid), labels).backward()
        norm = clip_gradients(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(norm)

    return step


def gap(model: Classifier, images: torch.Tensor, labels: torch.Tensor, grid: Grid) -> float:
    """Relative distance of all gradients of one batch, bf16 matrices from float32."""
    found = []
    for kind in ("float32", "bf16"):
        own = copy.deepcopy(model)
        with block_matrices(own, kind):
            F.cross_entropy(own(images, grid), labels).backward()
        found.append(torch.cat([p.grad.flatten() for p in own.parameters() if p.grad is not None]))
    return float((found[1] - found[0]).norm() / found[0].norm())


def measure(backbone: str, side: int, batch: int, turns: int) -> str:
    """A row of the table."""
    torch.manual_seed(0)
    model, grid = Classifier(build_backbone(backbone, pretrained=False)).train(), (side, side)
    images = torch.randn(batch, 3, *model.backbone.image_size)
    labels = torch.arange(batch) % CLASSES
    apart = gap(model, images, labels, grid)
    kinds = ("float32", "bf16")
    calls = {kind: steps(copy.deepcopy(model), kind, images, labels, grid) for kind in kinds}
    times = take_turns(calls, turns, torch.device("cpu"))
    ratio = spread([a / b for a, b in zip(times["float32"], times["bf16"], strict=True)])
    each = [f"{statistics.median(times[kind]) * 1e3:.0f}" for kind in kinds]
    return "| " + " | ".join([backbone, str(side), str(batch), *each, ratio, f"{apart:.1e}"]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="flexivit_nano")
    parser.add_argument("--grids", type=int, nargs="+", default=[5, 8, 15])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--turns", type=int, default=11)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| " + " | ".join(HEAD) + " |\n|" + " --- |" * len(HEAD))
    for side in args.grids:
        print(measure(args.backbone, side, args.batch, args.turns), flush=True)


if __name__ == "__main__":
    run_script(main)
