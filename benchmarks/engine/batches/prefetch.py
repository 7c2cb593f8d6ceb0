"""Batches on the device before they are asked for, and how many processes decode them."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from tasks.contract import Batch

Label = TypeVar("Label")


def ahead(found: Iterable[tuple[Label, Batch]], device: torch.device | str) -> Iterator[tuple[Label, Batch]]:
    """`found` with every batch on `device`, in the same order.

    On a GPU the next batch is fetched, and its copy begun in a stream of its own, before the present one is given out:
    bytes travel while the present one is computed on, out of pinned memory (`pin_memory=True` of a DataLoader, which
    calls `Batch.pin_memory`). An error of the next batch waits until the present one has been used. On any other device
    nothing is fetched before it is asked for.

    The CUDA branch has never run on a GPU; tests check its order of calls on a stand-in for the streams.

    Raises: whatever `found` raises, at the place of the batch that could not be had; KeyboardInterrupt at once.

    Example: `for part, batch in ahead((("test", b) for b in loader), "cuda"): look_at(batch)`
    """
    if torch.device(device).type != "cuda":
        for label, batch in found:
            yield label, batch.to(device)
        return
    side, fetch = torch.cuda.Stream(device), iter(found)
    following = _fetched(fetch, device, side)
    while (present := following()) is not None:
        now = torch.cuda.current_stream(device)
        now.wait_stream(side)  # before the following copy is queued there, which must not be waited for
        # what was allocated in the side stream would be reused there while the present one still reads it
        present[1].mapped(functools.partial(_recorded, stream=now))
        following = _fetched(fetch, device, side)
        yield present


def _fetched(
    found: Iterator[tuple[Label, Batch]], device: torch.device | str, side: torch.cuda.Stream
) -> Callable[[], tuple[Label, Batch] | None]:
    """The next pair with its copy begun, None at the end, or its error; to be called when its turn has come."""
    try:
        pair = next(found, None)
        if pair is None:
            return lambda: None
        with torch.cuda.stream(side):
            moved = pair[0], pair[1].to(device)
    except Exception as error:
        late = error

        def fail() -> Any:
            raise late

        return fail
    return lambda: moved


def _recorded(tensor: Tensor, stream: torch.cuda.Stream) -> Tensor:
    tensor.record_stream(stream)
    return tensor


def decoding_processes(device: torch.device | str, processes: int = 1, asked: int | None = None) -> int:
    """How many processes decode pictures for each process that computes.

    `asked` is kept. Else 0 on a CPU, which they would take from the model, and on a GPU an equal share of the CPUs that
    this process may use but for one, which computes. `processes`: those that compute on the same CPUs.

    Example: `decoding_processes("cuda", processes=4)` is 3 where 16 CPUs are allowed
    """
    if asked is not None:
        return asked
    if torch.device(device).type != "cuda":
        return 0
    return max(0, len(os.sched_getaffinity(0)) // max(1, processes) - 1)


def processes_here() -> int:
    """How many processes of this run share this one's CPUs: those of `--jobs`, of torchrun, or a Slurm job's tasks.

    Example: under `torchrun --nproc-per-node 4` it is 4
    """
    jobs, group, tasks = (
        int(os.environ.get(name) or 1) for name in ("FLEXIVIT_JOBS", "LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE")
    )
    most = max(jobs, group, tasks)
    # a Slurm that was told the CPUs of a task lets each use its own only
    return max(1, most // tasks) if os.environ.get("SLURM_CPUS_PER_TASK") else most
