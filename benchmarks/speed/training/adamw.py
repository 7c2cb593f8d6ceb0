"""AdamW as `build_optimizer` makes it, fused, beside AdamW that goes through the parameters one by one.

    python -m benchmarks.speed.training.adamw --turns 15

Prints a markdown row: a step of a model's parameters with gradients, fused and not, processor time in alternation.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Callable

import torch
from torch import nn

from backbones import build_backbone
from benchmarks.cli.errors import run_script
from benchmarks.engine.training.optimizers import BETAS, EPSILON, build_optimizer, parameter_groups
from benchmarks.speed.per_example import spread
from benchmarks.speed.throughput import take_turns
from tasks.contract import Recipe

RECIPE = Recipe(steps=100, batch=1, lr=1e-3, weight_decay=1e-2, optimizer="adamw")
HEAD = ("backbone", "parameters", "for-loop, ms", "fused, ms", "for-loop / fused (quartiles)", "weights differ by")


def stepping(model: nn.Module, fused: bool) -> Callable[[], None]:
    """A step on gradients that stay as they are."""
    if fused:
        optimizer = build_optimizer(model, RECIPE)
    else:
        groups = parameter_groups(model, RECIPE)
        optimizer = torch.optim.AdamW(groups, betas=BETAS, eps=EPSILON, fused=False, foreach=False)
    drawn = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=drawn).to(parameter.device)
    return optimizer.step  # type: ignore[return-value]


def measure(name: str, turns: int) -> str:
    """A row of the table.

    Raises: ValueError where the weights of the two ways are further apart than rounding.
    """
    models = {way: build_backbone(name, pretrained=False) for way in ("for-loop", "fused")}
    models["fused"] = copy.deepcopy(models["for-loop"])
    calls = {way: stepping(model, way == "fused") for way, model in models.items()}
    times = take_turns(calls, turns, torch.device("cpu"))
    pairs = list(zip(models["fused"].parameters(), models["for-loop"].parameters(), strict=True))
    gap = max(float((a - b).detach().norm() / b.detach().norm()) for a, b in pairs if b.detach().norm() > 0)
    if gap > 1e-4:
        raise ValueError(f"weights are {gap:.1e} apart after the same steps")
    count = sum(p.numel() for p in models["fused"].parameters())
    plain, fused = (1e3 * statistics.median(times[way]) for way in ("for-loop", "fused"))
    ratios = spread([a / b for a, b in zip(times["for-loop"], times["fused"], strict=True)])
    return f"| {name} | {count / 1e6:.1f} M | {plain:.1f} | {fused:.1f} | {ratios} | {gap:.0e} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["flexivit_nano", "flexivit_s_scratch"])
    parser.add_argument("--turns", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"| {' | '.join(HEAD)} |\n| --- |{' ---: |' * (len(HEAD) - 1)}")
    for name in options.backbones:
        print(measure(name, options.turns), flush=True)


if __name__ == "__main__":
    run_script(main)
