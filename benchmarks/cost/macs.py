"""What a cell costs: MACs of a backbone at a grid, estimated hours."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from backbones import backbone_spec, build_backbone
from backbones.cost import macs, shape_macs
from backbones.grids import Grid, parse_schedule
from benchmarks.cost.rates import Rate, assumed_speed, device_key, nearest
from tasks.contract import TrainingWork

if TYPE_CHECKING:
    from torch import nn

FORWARD_AND_BACKWARD = 3  # a backward pass is two forward passes
USUAL = TrainingWork()


@functools.lru_cache(maxsize=64)
def _outline(name: str, options: str) -> nn.Module | None:
    """The architecture without weights or memory; None where a backbone cannot be built so."""
    import torch

    try:
        with torch.device("meta"):
            return build_backbone(name, pretrained=False, **json.loads(options))
    except Exception:  # a plug-in's backbone may need its weights, or other options: then its cost is unknown
        return None


def macs_of(name: str, options: Mapping[str, Any], grid: Grid, side: int) -> int | None:
    """MACs by name, for a plan; None where they cannot be known without weights."""
    if (shape := backbone_spec(name).shape) is not None:
        return shape_macs(shape, grid, (side, side))
    return _counted(name, json.dumps(dict(options), sort_keys=True), grid, side)


@functools.lru_cache(maxsize=1024)
def _counted(name: str, options: str, grid: Grid, side: int) -> int | None:
    encoder = _outline(name, options)
    try:
        return None if encoder is None else macs(encoder, grid, side)
    except Exception:  # a plug-in's forward pass may fail without values; the run will say so
        return None


def of_training(
    shares: Mapping[Grid, float], needed: Mapping[Grid, int], seen: float, work: TrainingWork = USUAL
) -> dict[Grid, float]:
    """Multiply-adds of a training that looks at `seen` pictures, by grid; heads and teachers are left out.

    Args:
        shares: the part of the steps at each grid, as `GridSchedule.shares` has them.
        needed: multiply-adds of one forward pass of the backbone at each of them.

    Example: `of_training({(8, 8): 1.0}, {(8, 8): 90_000_000}, seen=600 * 64)`
    """
    texts = FORWARD_AND_BACKWARD * work.text
    return {g: seen * s * (work.passes * needed[g] + texts) + work.kept * needed[g] for g, s in shares.items()}


def estimate(
    cell: Any,
    steps: int,
    batch: int,
    images: int | None,
    side: int,
    device: str,
    own: float | None,
    rates: list[Rate],
    passes: Sequence[Grid] = (),
    work: TrainingWork = USUAL,
) -> dict[str, Any]:
    """`{"macs", "hours", "rate"}` of a cell; None where unknown. `rate` says where the speed is from.

    `rows`: `own`, the MACs a second that rows of this folder have; else `measured`: the nearest model and grid that
    `bench --rates` saw on the device, training and evaluation each by their own; else `assumed`. Heads, teachers,
    decoding and the texts of detection are left out. passes: the grids of an image's passes under all views, as
    `Task.passes` has them; by default one a view. work: of training, as `Task.training_work` has it.
    """
    grids = parse_schedule(cell.train).shares() if cell.train and steps else {}
    views = list(passes) or [v.grid for v in cell.views]
    needed = {g: macs_of(cell.backbone, cell.backbone_options, g, side) for g in {*grids, *views}}
    if any(v is None for v in needed.values()):
        return {"macs": None, "hours": None, "rate": None}
    trained = of_training(grids, {g: int(needed[g] or 0) for g in grids}, steps * batch, work)
    evaluated = [(g, needed[g] * (images or 0)) for g in views]
    total = sum(trained.values()) + sum(count for _, count in evaluated)
    seconds, source = total / assumed_speed(device, rates), "assumed"
    shape = backbone_spec(cell.backbone).shape
    found = {g: nearest(rates, device_key(device), shape, g) for g in needed} if shape and rates else {}
    if own:
        seconds, source = total / own, "rows"
    elif found and all(found.values()) and all(found[g].training for g in grids):
        seconds = sum(count / found[g].training for g, count in trained.items())
        seconds, source = seconds + sum(count / found[g].forward for g, count in evaluated), "measured"
    return {"macs": int(total), "hours": round(seconds / 3600, 4), "rate": source}
