"""A run that has nothing left to do says so without torch, which takes seconds to import."""

from __future__ import annotations

import os
import time
from pathlib import Path

from benchmarks.cost.rates import device_here
from benchmarks.engine.identity import Identities, precision_name
from benchmarks.engine.plan import Obstacles, rows_of
from benchmarks.engine.running.lines import Lines
from benchmarks.engine.running.options import RunOptions, evaluation_weights
from benchmarks.engine.running.summary import Summary
from benchmarks.engine.suite import Suite, cell_task
from benchmarks.store import Store

DRIVERS = ("nvidia[0-9]*", "nvidiactl", "kfd", "dxg")  # under /dev: torch may see a GPU that no command tells of


def opening(suite: Suite, device: str, precision: str, workers: int | None, limit: int | None) -> list[str]:
    """The first lines of a run: how many cells, and where. `precision`: as rows name it.

    Example: `opening(load_suite("demo"), "cpu", "float32", 0, None)` is `["demo: 12 cells on cpu, precision float32"]`
    """
    beside = f", {workers} processes decode" if workers else ""
    said = [f"{suite.name}: {len(suite.cells)} cells on {device}, precision {precision}{beside}"]
    if limit:
        told = f"{limit} samples of each split are evaluated"
        said.append(f"smoke test: {told}; its rows are marked, and stand in no table with whole ones")
    return said


def finished(suite: Suite, store: Store, data_root: Path, options: RunOptions, lines: Lines) -> Summary | None:
    """What a `Runner` would say and return where every cell has all of its rows, on a CPU.

    None where something is left to do or in the way, or may be: a `Runner` finds out, and nothing has been said.

    Raises: StoreError where results cannot be written.

    Example: `finished(suite, Store("results/runs/demo"), Path("data"), RunOptions(), Lines(print))`
    """
    clock, precision = time.perf_counter(), precision_name(options.precision or "no")
    group = "RANK" in os.environ or "WORLD_SIZE" in os.environ
    if group or not _on_cpu(options.device) or precision not in ("float32", "bf16"):
        return None
    # a glance, before any data is looked at: a row for each view and split
    if len(store.done()) < sum(len(cell.splits) * len(cell.views) for cell in suite.cells):
        return None
    weights = evaluation_weights("cpu", precision, options.eval_weights)
    identities, obstacles = Identities(precision, options.limit, weights), Obstacles(options.skip_broken)
    try:
        for cell in suite.cells:
            task = cell_task(cell, data_root)
            if obstacles.of(cell, task):
                return None
            identity = identities.of(cell, task)
            if len(rows_of(identity, store, options.skip_broken)) < len(identity.rows):
                return None
    except Exception:  # of one cell: the runner meets it again, and says of which
        return None
    store.check_writable()
    count = len(suite.cells)
    for text in opening(suite, "cpu", precision, options.workers, options.limit):
        lines.say(text)
    for number, cell in enumerate(suite.cells, 1):
        lines.begin(f"[{number}/{count}]", cell.label, "done")
    return Summary(done=[cell.label for cell in suite.cells], seconds=time.perf_counter() - clock)


def _on_cpu(device: str) -> bool:
    """Whether a run would surely compute on the CPU; False where only torch can tell."""
    if device:
        return device == "cpu"
    return device_here() == "cpu" and not any(any(Path("/dev").glob(name)) for name in DRIVERS)
