"""Batches ahead of their turn: the same, in the same order, at most one early; streams that wait and record."""

import contextlib
import os
from collections.abc import Iterator

import pytest
import torch
from torch.utils.data import DataLoader

from benchmarks.engine.batches.prefetch import ahead, decoding_processes, processes_here
from benchmarks.engine.batches.skipping import CollateRead, Unread
from tasks.contract import Batch, TaskError


def batch(i: int) -> Batch:
    """One with tensors everywhere that a batch may have them."""
    targets = {"boxes": [torch.full((2, 4), i)], "size": (torch.tensor(i), "name")}
    return Batch(torch.tensor([i]), [torch.full((3, 2, 2), i, dtype=torch.uint8)], targets, torch.full((1, 5), 0.5))


class Source:
    """Numbered batches; remembers which were taken, and fails at one of them."""

    def __init__(self, count: int, fails: int = -1, error: BaseException | None = None):
        self.count, self.fails, self.error, self.taken = count, fails, error, []

    def __iter__(self) -> Iterator[tuple[str, Batch]]:
        for i in range(self.count):
            if i == self.fails:
                raise self.error
            self.taken.append(i)
            yield f"part {i}", batch(i)


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """What is asked of CUDA, in order, by a stand-in for its streams; batches stay where they are."""
    said, inside = [], ["main"]

    class Stream:
        def __init__(self, name: str):
            self.name = name

        def wait_stream(self, other: "Stream") -> None:
            said.append(f"{self.name} waits for {other.name}")

    @contextlib.contextmanager
    def stream(chosen: Stream) -> Iterator[None]:
        inside.append(chosen.name)
        yield
        inside.pop()

    def to(self: Batch, device: str) -> Batch:
        said.append(f"copy {int(self.ids)} to {device} in {inside[-1]}")
        return self.mapped(lambda tensor: tensor)

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream("side"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(inside[-1]))
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(Batch, "to", to)
    recorded = lambda self, stream: said.append(f"record {self.dtype} {self.flatten()[0]} for {stream.name}")  # noqa: E731
    monkeypatch.setattr(torch.Tensor, "record_stream", recorded)
    return said


def same(found: Batch, expected: Batch) -> bool:
    left, right = [], []
    found.mapped(left.append), expected.mapped(right.append)
    return len(left) == 5 and all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_on_a_cpu_nothing_is_taken_before_its_turn() -> None:
    source = Source(4)
    for i, (label, found) in enumerate(ahead(source, "cpu")):
        assert source.taken == list(range(i + 1)) and label == f"part {i}" and same(found, batch(i))
    assert i == 3


def test_on_a_gpu_one_batch_is_ahead(calls) -> None:
    source = Source(4)
    for i, (label, found) in enumerate(ahead(source, "cuda")):
        assert source.taken == list(range(min(i + 2, 4))) and label == f"part {i}" and same(found, batch(i))
    assert i == 3 and not list(ahead(Source(0), "cuda"))


def test_a_copy_is_waited_for_before_the_next_is_queued_and_recorded_before_use(calls) -> None:
    for _, found in ahead(Source(2), "cuda:1"):
        calls.append(f"use {int(found.ids)}")

    def turn(i: int) -> list[str]:
        tensors = [f"int64 {i}", f"uint8 {i}", f"int64 {i}", f"int64 {i}", "float32 0.5"]
        return ["main waits for side", *(f"record torch.{t} for main" for t in tensors)]

    first, second = "copy 0 to cuda:1 in side", "copy 1 to cuda:1 in side"
    assert calls == [first, *turn(0), second, "use 0", *turn(1), "use 1"]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_an_error_comes_at_its_own_turn(device: str, calls) -> None:
    for fails in (0, 1, 3):
        used, error = [], TaskError("picture 7 is torn")
        with pytest.raises(TaskError) as raised:
            for _, found in ahead(Source(4, fails, error), device):
                used.append(int(found.ids))
        assert used == list(range(fails)) and raised.value is error


def test_ctrl_c_stops_at_once(calls) -> None:
    used = []
    with pytest.raises(KeyboardInterrupt):
        for _, found in ahead(Source(4, 2, KeyboardInterrupt()), "cuda"):
            used.append(int(found.ids))
    assert used == [0]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_leaving_early_closes_the_source(device: str, calls) -> None:
    closed = []

    def source() -> Iterator[tuple[int, Batch]]:
        try:
            for i in range(9):
                yield i, batch(i)
        finally:
            closed.append(i)

    found = ahead(source(), device)
    next(found)
    found.close()
    del found
    assert closed == [0 if device == "cpu" else 1]


def test_a_loader_pins_whole_batches(monkeypatch) -> None:
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self, *a: pinned.append(self.shape) or self)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *a: torch.device("cuda"))
    collate = CollateRead(lambda samples: batch(samples[0]))
    loader = DataLoader([3, Unread(1, "torn")], batch_size=2, collate_fn=collate, pin_memory=True)
    ((found, unread),) = loader
    assert same(found, batch(3)) and unread == [Unread(1, "torn")] and len(pinned) == 5


def test_processes_that_decode(monkeypatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)))
    assert decoding_processes("cpu") == decoding_processes(torch.device("cpu"), 2) == 0
    assert [decoding_processes("cuda", n) for n in (1, 2, 4, 12, 13)] == [11, 5, 2, 0, 0]
    assert decoding_processes(torch.device("cuda", 1), 3) == 3
    assert [decoding_processes(d, 4, asked) for d in ("cpu", "cuda") for asked in (0, 5, 20)] == [0, 5, 20] * 2


@pytest.mark.parametrize(
    ("environment", "count"),
    [
        ({}, 1),
        ({"FLEXIVIT_JOBS": "4"}, 4),
        ({"LOCAL_WORLD_SIZE": "3"}, 3),
        ({"SLURM_NTASKS_PER_NODE": "4"}, 4),
        ({"SLURM_NTASKS_PER_NODE": "4", "SLURM_CPUS_PER_TASK": "8"}, 1),  # bound to eight each
        ({"SLURM_NTASKS_PER_NODE": "4", "SLURM_CPUS_PER_TASK": "8", "LOCAL_WORLD_SIZE": "4"}, 1),
        ({"SLURM_NTASKS_PER_NODE": "1", "SLURM_CPUS_PER_TASK": "32", "LOCAL_WORLD_SIZE": "4"}, 4),  # torchrun in a task
    ],
    ids=str,
)
def test_processes_that_share_the_cpus(environment: dict[str, str], count: int, monkeypatch) -> None:
    for name in ("FLEXIVIT_JOBS", "LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE", "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert processes_here() == count
