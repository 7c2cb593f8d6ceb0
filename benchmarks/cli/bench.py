"""The verb `bench`: how fast a backbone is at its grids, beside other libraries' models of the same shape."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from benchmarks.cost.rates import Rate


def bench(
    backbones: Annotated[str, typer.Argument(help="Names, separated by commas.")] = "flexivit_nano",
    grids: Annotated[str, typer.Option(help="Grids, separated by commas; default: those of its image size.")] = "",
    batch: Annotated[int, typer.Option(min=1)] = 32,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    training: Annotated[bool, typer.Option("--training", help="Time forward, backward and AdamW step too.")] = False,
    compile: Annotated[bool, typer.Option(help="Time compiled models too.")] = True,
    turns: Annotated[int, typer.Option(min=1, help="Measured turns of each contender.")] = 15,
    pretrained: Annotated[bool, typer.Option(help="Open the weights; speed does not need them.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
    out: Annotated[Path | None, typer.Option(help="Markdown file to write.")] = None,
    rates: Annotated[Path | None, typer.Option(help="JSON table to add the speeds to, which `plan` reads.")] = None,
) -> None:
    """Speed at grids beside timm and transformers.  Example: run_all.py bench flexivit_nano --training"""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler tells when it starts and that there is no GPU
    import torch

    from backbones import build_backbone
    from benchmarks.speed.throughput import conditions, markdown, measure

    if device not in ("cpu", "cuda"):
        raise ValueError(f"no device {device!r} to bench on; there are: cpu, cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("no CUDA device is visible; try --device cpu")
    names = [n.strip() for n in backbones.split(",") if n.strip()]
    encoders = {name: build_backbone(name, pretrained=pretrained) for name in names}
    # every user error comes before any time is spent
    wanted = {name: _grids(name, encoder, grids) for name, encoder in encoders.items()}
    origin = _origin(device)  # now, not after hours: the revision is that of the code that measures
    found: list[dict[str, Any]] = []
    for name, encoder in encoders.items():
        rows, notes = [], conditions(encoder, device)
        for grid in wanted[name]:
            row, new = measure(encoder, (grid, grid), batch, device, turns=turns, training=training, compile=compile)
            rows.append(row)
            notes += [n for n in new if n not in notes]
            print(f"  {name}, grid {grid}: {row['ratio']:.2f} of timm's speed", file=sys.stderr, flush=True)
        found.append({"backbone": name, "batch": batch, "device": device, "grids": rows, "notes": notes})
    if rates:
        from benchmarks.cost.rates import keep_rates

        keep_rates(rates, [rate for f in found for rate in _rates(f, encoders[f["backbone"]], origin)])
    text = "\n\n".join(
        [origin]
        + [
            f"## {f['backbone']}, batch {batch}\n\n{markdown(f['grids'])}\n\n" + "\n".join(f"- {n}" for n in f["notes"])
            for f in found
        ]
    )
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(f"# Speed at each grid\n\n{text}\n", encoding="utf-8")
    print(json.dumps(found, indent=1) if as_json else text)


def _rates(found: dict[str, Any], encoder: Any, origin: str) -> list[Rate]:
    """What was measured of one backbone as a plan needs it."""
    from benchmarks.cost.macs import FORWARD_AND_BACKWARD
    from benchmarks.cost.rates import Rate, device_key

    made = " ".join(origin.split("`, ", 1)[1].split())
    return [
        Rate(
            device_key(found["device"]), found["backbone"], encoder.embed_dim, len(encoder.trunk.blocks), row["grid"],
            found["batch"], "bf16" if found["device"] == "cuda" else "float32",
            int(row["macs"] * row["images_per_second"]["ours"]),
            int(FORWARD_AND_BACKWARD * row["macs"] * row["training_images_per_second"]["ours"])
            if "training_images_per_second" in row else None, made,
        )
        for row in found["grids"]
    ]  # fmt: skip


def _grids(name: str, encoder: Any, text: str) -> list[int]:
    """The grids asked for, or those of the image size. Raises ValueError for what is no grid of this backbone."""
    from timm.models.vision_transformer import VisionTransformer

    from backbones.grids import NANO_GRIDS, PAPER_GRIDS, patch_size, valid_grids

    if not isinstance(getattr(encoder, "trunk", None), VisionTransformer):
        raise ValueError(f"{name} is no timm VisionTransformer: bench has nothing to compare its speed with")
    side = encoder.image_size[0]
    try:
        asked = [int(g) for g in text.split(",")] if text else []
    except ValueError:
        raise ValueError(f"cannot read grids {text!r}; write 4,8,15") from None
    if not asked:
        usual = NANO_GRIDS if side == 120 else PAPER_GRIDS
        asked = [g for g in usual if g in valid_grids(side)] or [encoder.native_grid[0]]
    for grid in asked:
        patch_size(encoder.image_size, grid)
    return asked


def _origin(device: str) -> str:
    """Command, date, revision, machine and versions."""
    import torch
    import transformers

    from benchmarks.store import environment

    found = environment()
    machine = found["device_name"] if device == "cuda" else f"{found['cpus']} cores of {platform.machine()}, no GPU"
    versions = {n: found["versions"][n] for n in ("torch", "timm")} | {"transformers": transformers.__version__}
    return (
        f"`python run_all.py {shlex.join(sys.argv[1:])}`, {date.today()}, revision {found['revision']},\n"
        f"{machine}, {platform.system()}, threads: {torch.get_num_threads()}, "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
    )
