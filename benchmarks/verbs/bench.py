"""The verb `bench`: how fast a backbone is at its grids."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def bench(
    backbone: Annotated[str, typer.Argument(help="A backbone's name.")] = "flexivit_nano",
    grids: Annotated[str, typer.Option(help="Grids, separated by commas.")] = "4,8,15",
    batch: Annotated[int, typer.Option(min=1)] = 32,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    pretrained: Annotated[bool, typer.Option(help="Open the weights; speed does not need them.")] = False,
) -> None:
    """Throughput, latency and MACs of a backbone at grids, as JSON.  Example: run_all.py bench flexivit_nano"""
    from backbones import build_backbone
    from benchmarks.cost import throughput

    sides = [int(g) for g in grids.split(",")]
    encoder = build_backbone(backbone, pretrained=pretrained)
    found = [throughput(encoder, (g, g), batch, device) for g in sides]
    print(json.dumps({"backbone": backbone, "batch": batch, "device": device, "grids": found}, indent=1))
