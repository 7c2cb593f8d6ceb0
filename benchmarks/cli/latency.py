"""The verb `latency`: how long one call of the models of a run takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.cli.options import DataRoot, Trust


def latency(
    folder: Annotated[Path, typer.Argument(help="Folder of a run.")],
    data_root: DataRoot = Path("data"),
    batch: Annotated[str, typer.Option(help="Images of a call, separated by commas.")] = "1",
    device: Annotated[str, typer.Option(help="cpu or cuda; default: cuda where there is one.")] = "",
    calls: Annotated[int, typer.Option(min=3, help="Measured calls of each choice.")] = 30,
    pause: Annotated[float, typer.Option(min=0, help="Seconds before each call.")] = 0.2,
    trust: Trust = False,
) -> None:
    """Measure what one call of each row's own model takes, warm and with pauses; `report` then knows milliseconds.

    Example: run_all.py latency results/runs/mini --data-root DATA --batch 1,8
    """
    parts = [part.strip() for part in batch.split(",")]
    if not all(part.isdigit() and int(part) for part in parts):
        raise ValueError(f"--batch {batch!r}: numbers of images, such as 1,8")
    from benchmarks.cost.latency import keep_latencies
    from benchmarks.cost.rates import device_here
    from benchmarks.cost.timing import measure_latencies
    from benchmarks.store import Store

    store, device = Store(folder, trust), device or device_here()
    if device not in ("cpu", "cuda"):
        raise ValueError(f"no device {device!r}; there are: cpu, cuda")
    if not store.rows():
        raise ValueError(f"no rows in {store.path}; run a suite with --out {store.folder} first")
    sizes, count = [int(part) for part in parts], 0
    for found in measure_latencies(store, data_root, sizes, device, calls, pause):
        keep_latencies(store, [found])
        count += 1
        print(f"{found.label}: {found.shown()} ms an image ({found.setting}){f'; {found.slowed}' * bool(found.slowed)}")
    print(f"{count} latencies measured; the others were there already" if count else "all were there already")
