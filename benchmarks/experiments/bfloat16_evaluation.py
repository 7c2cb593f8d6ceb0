"""What evaluation with weights and residual stream in bfloat16 changes: top-1 of the nano backbones, paired by picture.

    python -m benchmarks.experiments.bfloat16_evaluation --data DATA --grids 5 8

Prints a markdown table over the validation pictures of Tiny ImageNet's 100 classes, which the upstream head tells.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones import build_backbone
from benchmarks.cli.errors import run_script
from benchmarks.engine.bfloat16 import bfloat16_weights
from benchmarks.studies.tiny_imagenet import load_tiny_imagenet

CHUNK = 100
HEAD = ("backbone", "grid", "pictures", "top-1, float32", "top-1, bfloat16", "difference, points", "other answers")


class Classified(nn.Module):
    """A backbone with the head that it came with."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor, grid: int) -> Tensor:
        return self.backbone.head(self.backbone(images, grid).pooled.float())  # type: ignore[operator, attr-defined]


@torch.no_grad()
def answers(model: Classified, images: Tensor, grid: int) -> Tensor:
    """Logits [N, C] of uint8 pictures, enlarged to the backbone's own size."""
    size = model.backbone.image_size

    def logits() -> Iterator[Tensor]:
        for chunk in images.split(CHUNK):
            larger = F.interpolate(chunk.float(), size=size, mode="bilinear", antialias=True)
            yield model(larger.round().clamp(0, 255).byte(), grid)

    return torch.cat(list(logits()))


def compared(model: Classified, images: Tensor, labels: Tensor, grid: int) -> tuple[float, float, int]:
    """Top-1 with float32 and with bfloat16 weights, and how many pictures get another answer.

    Raises: ValueError where the backbone cannot be looked through so.

    Example: `compared(Classified(build_backbone("flexivit_nano").eval()), images, labels, 8)`
    """
    plain = answers(model, images, grid).argmax(1)
    with bfloat16_weights(model) as kept:
        if kept:
            raise ValueError(kept[0])
        rounded = answers(model, images, grid).argmax(1)
    top1 = [float((found == labels).double().mean()) for found in (plain, rounded)]
    return top1[0], top1[1], int((plain != rounded).sum())


def table(names: Sequence[str], grids: Sequence[int], images: Tensor, labels: Tensor) -> Iterator[str]:
    """Lines of the table, as they are measured."""
    yield f"| {' | '.join(HEAD)} |\n| --- |{' ---: |' * (len(HEAD) - 1)}"
    for name in names:
        model = Classified(build_backbone(name).eval())
        for grid in grids:
            plain, rounded, others = compared(model, images, labels, grid)
            points = 100 * (rounded - plain)
            yield f"| {name} | {grid} | {len(images)} | {plain:.2%} | {rounded:.2%} | {points:+.2f} | {others} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.experiments.bfloat16_evaluation", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="data root with the Tiny ImageNet pack")
    parser.add_argument("--backbones", nargs="+", default=["flexivit_nano"])
    parser.add_argument("--grids", type=int, nargs="+", default=[5, 8])
    parser.add_argument("--pictures", type=int, default=5000)
    options = parser.parse_args()
    found = load_tiny_imagenet(options.data / "pretrain", "val")
    chosen = torch.arange(options.pictures) * len(found.images) // options.pictures
    for line in table(options.backbones, options.grids, found.images[chosen], found.labels[chosen]):
        print(line, flush=True)


if __name__ == "__main__":
    run_script(main)
