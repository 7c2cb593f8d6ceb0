"""What a cell costs: MACs of a backbone at a grid, estimated hours."""

from __future__ import annotations

import functools
import json
import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from backbones import backbone_spec, build_backbone
from backbones.grids import Grid, parse_schedule
from backbones.shape import VitShape

if TYPE_CHECKING:
    from torch import nn

FORWARD_AND_BACKWARD = 3  # a backward pass is two forward passes
SPEED = {"cpu": 2e10, "cuda": 4e13}  # MACs a second where nothing was measured: a core; a data-centre GPU in bf16


def macs(encoder: nn.Module, grid: Grid) -> int:
    """Multiply-adds of one image at a grid: matrices, attention and patches, without the kernel's resize.

    Works on a backbone built on the `meta` device too. Backbones that are no timm ViT raise AttributeError.

    Example: `macs(build_backbone("flexivit_nano"), (15, 15))`
    """
    from torch import nn

    trunk, side = encoder.trunk, encoder.image_size
    matrices = sum(m.weight.numel() for m in trunk.blocks.modules() if isinstance(m, nn.Linear))
    tokens = grid[0] * grid[1] + trunk.num_prefix_tokens
    return _vit_macs(tokens, matrices, trunk.embed_dim, len(trunk.blocks), side)


def _vit_macs(tokens: int, matrices: int, width: int, depth: int, side: tuple[int, int]) -> int:
    attention = 2 * tokens * width * depth
    return int(tokens * (matrices + attention) + 3 * width * side[0] * side[1])


def shape_macs(shape: VitShape, grid: Grid, side: tuple[int, int]) -> int:
    """`macs` of an architecture that is not built.

    Example: `shape_macs(backbone_spec("flexivit_l_i1k").shape, (15, 15), (240, 240))`
    """
    tokens = grid[0] * grid[1] + (shape.pool == "token")
    matrices = shape.depth * (4 * shape.width**2 + 2 * shape.width * shape.mlp)
    return _vit_macs(tokens, matrices, shape.width, shape.depth, side)


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
    if name.startswith("timm:") or name.endswith((".npz", ".safetensors")):
        return None
    if (shape := backbone_spec(name).shape) is not None:
        return shape_macs(shape, grid, (side, side))
    encoder = _outline(name, json.dumps(dict(options), sort_keys=True))
    if encoder is None or not hasattr(encoder, "trunk"):
        return None
    encoder.image_size = (side, side)
    return macs(encoder, grid)


def estimate(cell: Any, steps: int, batch: int, images: int | None, side: int, device: str, rows: list[Any]) -> dict:
    """`{"macs", "hours"}` of a cell; None where unknown. The device's rate is that of rows of this folder, if any."""
    grids = parse_schedule(cell.train).grids if cell.train else ()
    needed = {
        g: macs_of(cell.backbone, cell.backbone_options, g, side) for g in {*grids, *(v.grid for v in cell.views)}
    }
    if any(v is None for v in needed.values()):
        return {"macs": None, "hours": None}
    trained = FORWARD_AND_BACKWARD * steps * batch * (sum(needed[g] for g in grids) / len(grids) if grids else 0)
    evaluated = (images or 0) * sum(needed[v.grid] for v in cell.views)
    rates = [c["macs_per_second"] for r in rows if (c := r.get("cost") or {}).get("macs_per_second")]
    rate = statistics.median(rates) if rates else SPEED.get(device, SPEED["cpu"])
    return {"macs": int(trained + evaluated), "hours": round((trained + evaluated) / rate / 3600, 4)}
