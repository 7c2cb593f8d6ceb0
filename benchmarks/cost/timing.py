"""Measures latencies: one call at a time, warm, with pauses, of the models of a folder's rows."""

from __future__ import annotations

import contextlib
import glob
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path

import torch
from torch import nn

from benchmarks.cost.latency import Latency, read_latencies
from benchmarks.cost.rates import device_key
from benchmarks.engine.batches.evaluation import eval_batches
from benchmarks.engine.bfloat16 import bfloat16_weights
from benchmarks.engine.reopen import reopen
from benchmarks.engine.sweep import Lane, normalised_once
from benchmarks.store import Row, Store, environment
from tasks.contract import Task, TaskError, View

WARM = 5  # calls before the first that counts
PAUSE = 0.2  # seconds before each call: one after the other, a busy pass is measured and not what a user waits for
DRIFT = 1.15  # the last third of the calls this much slower than the first: something slowed the device
THERMAL = 0x8 | 0x20 | 0x40 | 0x80  # of nvidia-smi: slowdown by hardware, by heat (both kinds), by power


def measure_latencies(
    store: Store,
    data_root: Path,
    batches: Sequence[int] = (1,),
    device: str = "cpu",
    calls: int = 30,
    pause: float = PAUSE,
    say: Callable[[str], None] = print,
) -> Iterator[Latency]:
    """Of each choice of a folder: the model of its first seed, on the first images of its split, with the row's
    precision. What was measured on this device already is passed over; a row without its weights is said.

    Raises: ValueError where the split has fewer images than a batch.

    Example: `keep_latencies(store, measure_latencies(store, Path("data"), batches=[1, 8]))`
    """
    known = read_latencies([store])
    opened: tuple[str, tuple[Task, nn.Module] | None] = ("", None)
    for row in _choices(store):
        settings = {b: f"{device_key(device)}, {row.precision}, batch {b}" for b in batches}
        wanted = [b for b, setting in settings.items() if row.row_key not in known.get(setting, {})]
        if not wanted:
            continue
        key = f"{row.train_key or row.cell_key} {row.label}"
        if opened[0] != key:
            try:
                opened = (key, reopen(store, row, data_root, device))
            except TaskError as error:
                opened = (key, None)
                say(f"{row.label}: {error}")
        if opened[1] is None:
            continue
        for batch in wanted:
            yield _measured(row, *opened[1], batch, device, calls, pause)


def _choices(store: Store) -> list[Row]:
    """One row for each choice, its first seed, by training."""
    found: dict[tuple[str, ...], Row] = {}
    for row in sorted((r for r in store.rows() if r.status == "ok"), key=lambda r: r.seed or 0):
        place = (row.task, row.options, row.recipe, row.backbone, row.backbone_options, row.train_grid, row.eval_grid,
                 row.resize, row.view_options, row.split, row.image_size)  # fmt: skip
        found.setdefault(tuple(map(str, place)), row)
    return sorted(found.values(), key=lambda r: (r.label or "", r.train_key or ""))


def _measured(row: Row, task: Task, model: nn.Module, batch: int, device: str, calls: int, pause: float) -> Latency:
    h, _, w = str(row.eval_grid).partition("x")
    view, split = View((int(h), int(w or h)), row.resize, dict(row.view_options)), row.split or "test"
    lane = Lane(task, [view], split)
    images = next(iter(eval_batches(task.reading(view), task.parts(split)[-1], batch)))
    if len(images) < batch:
        raise ValueError(f"split {split!r} of {row.task} has {len(images)} images, a batch takes {batch}")
    images = images.to(device)
    half = row.precision in ("bf16", "bfloat16")
    precision = torch.autocast(torch.device(device).type, torch.bfloat16) if half else contextlib.nullcontext()
    with torch.no_grad(), precision, bfloat16_weights(model, row.eval_weights == "bf16"):
        prepared = lane.prepared(model, view)
        with task.viewing(model, view) as own:
            taken, slowed = time_calls(
                lambda: own.predict(model, normalised_once(model, images), view.grid, prepared), device, calls, pause
            )
    low, middle, high = statistics.quantiles(taken, n=4)
    return Latency(
        row.row_key, row.label or row.backbone, device_key(device), row.precision or "float32", batch,
        round(middle, 4), round(low, 4), round(high, 4), calls, pause, slowed,
        f"revision {environment()['revision'] or 'unknown'}, {date.today()}",
    )  # fmt: skip


def time_calls(call: Callable[[], object], device: str, calls: int, pause: float) -> tuple[list[float], str]:
    """Milliseconds of each call, and what says that the device was slowed down meanwhile.

    Example: `time_calls(lambda: model(images), "cpu", calls=30, pause=0.2)[0]`
    """
    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    for _ in range(WARM):
        call()
    wait()
    before, taken = _throttle_count(), []
    for _ in range(calls):
        time.sleep(pause)
        begin = time.perf_counter()
        call()
        wait()
        taken.append(1e3 * (time.perf_counter() - begin))
    return taken, _slowed(taken, before, device)


def _slowed(taken: Sequence[float], before: int, device: str) -> str:
    third = max(1, len(taken) // 3)
    first, last = statistics.median(taken[:third]), statistics.median(taken[-third:])
    told = []
    if last > DRIFT * first:
        told.append(f"the last calls took {last / first:.2f} times the first")
    if (count := _throttle_count() - before) > 0:
        told.append(f"the processor throttled {count} times")
    if torch.device(device).type == "cuda" and _reasons() & THERMAL:
        told.append("the GPU lowered its clocks by heat or power")
    return "; ".join(told)


def _throttle_count() -> int:
    """How often this machine's processors throttled by heat since it started; 0 where the system does not say."""
    total = 0
    for path in glob.glob("/sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count"):
        with contextlib.suppress(OSError, ValueError):
            total += int(Path(path).read_bytes())
    return total


def _reasons() -> int:
    """Bits of nvidia-smi's reasons for lower clocks; 0 where it does not say."""
    asked = ["nvidia-smi", "--query-gpu=clocks_throttle_reasons.active", "--format=csv,noheader"]
    with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
        done = subprocess.run(asked, capture_output=True, encoding="ascii", errors="replace", timeout=10)
        return int(done.stdout.split()[0], 16) if done.stdout.split() else 0
    return 0
