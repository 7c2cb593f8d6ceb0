"""How alike layers are at different grids: CKA before and after each attention and MLP (FlexiViT, figure of CKA).

python -m benchmarks.studies.representations --data DATA/pretrain --out results/runs/studies/representations
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from backbones import FlexiBackbone, build_backbone
from benchmarks.cli.errors import run_script
from benchmarks.studies.cka import MinibatchCKA, arc_cosine, classical_scaling
from benchmarks.studies.pictures import validation_pictures
from benchmarks.studies.settings import study_main

COLOURS = ("#c8553d", "#588157", "#1b6ca8", "#8d6a9f", "#b08900")


@dataclass(frozen=True)
class Settings:
    """`align`: grid that all patch tokens are brought to, 0 for the smallest. `against`: a second backbone."""

    backbone: str = "flexivit_nano"
    against: str = ""
    grids: list[int] = field(default_factory=lambda: [4, 8, 15])
    pictures: int = 500
    align: int = 0


@torch.no_grad()
def residual_stream(encoder: FlexiBackbone, images: Tensor, grid: int) -> list[Tensor]:
    """Tokens `[B, P + grid^2, D]` before the first attention, then after each attention and each MLP (2 depth + 1)."""
    states: list[Tensor] = []
    blocks = encoder.trunk.blocks
    hooks = [blocks[0].register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))]
    for block in blocks:
        hooks.append(block.norm2.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0])))
        hooks.append(block.register_forward_hook(lambda _, inputs, output: states.append(output)))
    try:
        encoder(images, grid)
    finally:
        for hook in hooks:
            hook.remove()
    return states


def point_names(depth: int) -> list[str]:
    """Names of the states of `residual_stream`."""
    return ["input"] + [f"{part} {i}" for i in range(1, depth + 1) for part in ("attention", "MLP")]


def align_tokens(tokens: Tensor, prefix: int, grid: int, target: int) -> Tensor:
    """Patch tokens `[B, P + grid^2, D]` interpolated to `target`: one sample a place, `[B * target^2, D]`."""
    planes = tokens[:, prefix:].unflatten(1, (grid, grid)).permute(0, 3, 1, 2)
    if grid != target:
        planes = F.interpolate(planes, size=(target, target), mode="bilinear", align_corners=False, antialias=True)
    return planes.permute(0, 2, 3, 1).flatten(0, 2)


def compare(
    encoders: Sequence[FlexiBackbone], grids: Sequence[int], batches: Any, align: int, device: str
) -> tuple[dict[str, Tensor], int]:
    """CKA of all states of all (encoder, grid), by `patch tokens` and, where all have one, `cls token`; and pictures.

    Order of rows: encoder, then grid, then state. Images are resized to each encoder's own size.
    """
    count = len(grids) * sum(2 * len(e.trunk.blocks) + 1 for e in encoders)
    kinds = ["patch tokens"] + (["cls token"] if all(e.trunk.cls_token is not None for e in encoders) else [])
    sums, seen = {kind: MinibatchCKA(count) for kind in kinds}, 0
    for images, _ in batches:
        patches: list[Tensor] = []
        classes: list[Tensor] = []
        for encoder in encoders:
            resized = F.interpolate(images.float(), size=encoder.image_size, mode="bilinear", antialias=True)
            own = resized.round().clamp(0, 255).to(torch.uint8).to(device)
            for grid in grids:
                for state in residual_stream(encoder, own, grid):
                    patches.append(align_tokens(state, encoder.trunk.num_prefix_tokens, grid, align))
                    classes.append(state[:, 0])
        for kind, features in zip(kinds, (patches, classes), strict=False):
            sums[kind].add(features)
        seen += len(images)
    return {kind: one.matrix() for kind, one in sums.items()}, seen


def run(settings: Settings, data: Path, out: Path, device: str) -> dict[str, Any]:
    """CKA of every pair of states, distances in the plane, table and plot."""
    names = [settings.backbone, *([settings.against] if settings.against else [])]
    encoders = [build_backbone(name).to(device).eval() for name in names]
    side = max(e.image_size[0] for e in encoders)
    batches = validation_pictures(data, settings.pictures, side)
    matrices, seen = compare(encoders, settings.grids, batches, settings.align or min(settings.grids), device)
    rows = [
        {"backbone": name, "grid": grid, "state": state}
        for name, encoder in zip(names, encoders, strict=True)
        for grid in settings.grids
        for state in point_names(len(encoder.trunk.blocks))
    ]
    kinds = {kind: placed(cka) for kind, cka in matrices.items()}
    result = {"pictures": seen, "states": rows, "kinds": kinds}
    (out / "table.md").write_text(table(result), encoding="utf-8")
    plot(result, out / "representations.png")
    return result


def placed(cka: Tensor) -> dict[str, Any]:
    """`cka` and the states' points in the `plane`; None for states that are the same for all pictures."""
    defined = ~cka.diagonal().isnan()
    points = iter(classical_scaling(arc_cosine(cka[defined][:, defined])).tolist())
    values = [[None if v != v else v for v in row] for row in cka.tolist()]
    return {"cka": values, "plane": [next(points) if d else None for d in defined.tolist()]}


def series(result: dict[str, Any]) -> dict[str, list[int]]:
    """Rows of each (backbone, grid), in order of depth."""
    several, found = len({r["backbone"] for r in result["states"]}) > 1, {}
    for i, row in enumerate(result["states"]):
        name = f"{row['backbone']} grid {row['grid']}" if several else f"grid {row['grid']}"
        found.setdefault(name, []).append(i)
    return found


def table(result: dict[str, Any]) -> str:
    """Markdown: CKA of the same state between each two series of the same depth; a row a state."""
    groups, lines = series(result), []
    pairs = [(a, b) for a, b in combinations(groups, 2) if len(groups[a]) == len(groups[b])]
    for kind, values in result["kinds"].items():
        lines += [f"{kind.capitalize()}: CKA at the same place", ""]
        lines += ["| after | " + " | ".join(f"{a} - {b}" for a, b in pairs) + " |", "| --- |" + " ---: |" * len(pairs)]
        for k, i in enumerate(next(iter(groups.values()))):
            found = [values["cka"][groups[a][k]][groups[b][k]] for a, b in pairs]
            cells = ["-" if v is None else f"{v:.3f}" for v in found]
            lines.append(f"| {result['states'][i]['state']} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def plot(result: dict[str, Any], path: Path) -> None:
    """Each kind of token in the plane: a line a (backbone, grid) from its input (square) to its last layer (star)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(result["kinds"]), figsize=(4.4 * len(result["kinds"]), 4.2), squeeze=False)
    for axis, (kind, values) in zip(axes[0], result["kinds"].items(), strict=True):
        for n, (name, members) in enumerate(series(result).items()):
            points = [(values["plane"][i], result["states"][i]["state"]) for i in members]
            points = [(*place, state) for place, state in points if place is not None]
            colour = COLOURS[n % len(COLOURS)]
            axis.plot([p[0] for p in points], [p[1] for p in points], color=colour, linewidth=1, alpha=0.7, label=name)
            for x, y, state in points:
                last = state == points[-1][2]
                mark = "*" if last else {"input": "s", "attention": "o", "MLP": "^"}[state.split()[0]]
                axis.plot(x, y, mark, color=colour, markersize=13 if last else 5)
        axis.set_title(kind, fontsize=10)
        axis.set_aspect("equal", adjustable="datalim")
        axis.set(xticks=[], yticks=[], xlabel="square: input, o: attention, ^: MLP, star: last")
    axes[0, 0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    run_script(functools.partial(study_main, "representations"))
