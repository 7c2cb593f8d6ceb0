"""Processes that share one evaluation: the rows of a single one, and an error of one is an error of all."""

import os
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import runner_tools  # noqa: F401  (makes the plug-in importable)
import torch
from accelerate import Accelerator
from flexivit_toy import Quarters, Toy
from tiny_backbone import tiny

from backbones.grids import GridSchedule
from benchmarks.engine.running.processes import end_group, end_process, failing_together
from benchmarks.engine.sweep import sweep
from benchmarks.engine.training.loop import StepBatches, _within_memory, finetune
from tasks.contract import Batch, Recipe, TaskError
from tasks.contract.meters import gathered

COUNT, BATCH, WORLD = 23, 4, 2  # six batches, the last of three pictures


class Torn(Quarters):
    """The tenth picture, in the share of the first process, and no other, cannot be read."""

    def __getitem__(self, i: int) -> Any:
        if i == 9:
            raise TaskError("picture 9 is torn")
        return super().__getitem__(i)


def look(rank: int, world: int, pictures: type[Quarters]) -> dict[str, Any]:
    task = Toy()
    task.dataset = lambda split: pictures(2000, COUNT)
    task.predict = lambda m, b, g, p: {"logits": (x := m.head(m.backbone(b.images, g).pooled)), "right": x > 0}
    seen, meter = [], task.meter("test")
    plain = meter.update

    def update(records, batch, view, part) -> None:
        seen.extend(batch.ids.tolist())
        plain(records, batch, view, part)

    meter.update, task.meter = update, lambda split: meter
    torch.manual_seed(0)
    result = sweep(task, task.model(tiny()), task.views([2, 4]), "test", batch=BATCH, rank=rank, world=world)
    return {"rows": result.rows, "images": result.images, "seconds": result.seconds, "seen": seen}


def process(rank: int, folder: Path, threads: int) -> None:
    """One of a group: what it found, and what it was told of the other's error."""
    torch.set_num_threads(threads)  # sums depend on them in the last bit
    # what a launcher sets; the port is not used, the group meets in a file
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORLD), "LOCAL_WORLD_SIZE": str(WORLD)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=WORLD)
    found = look(rank, WORLD, Quarters)
    try:
        look(rank, WORLD, Torn)
    except TaskError as error:
        found["error"] = str(error)
    task = Toy()
    task.dataset = lambda split: Torn(2000, COUNT)
    task.recipe = Recipe(steps=9, batch=BATCH, lr=0.01)
    torch.manual_seed(0)
    model, steps = task.model(tiny()), []
    try:
        finetune(task, model, task.recipe, GridSchedule("fixed", ((2, 2),)), Accelerator(cpu=True),
                 progress=lambda step, *_: steps.append(step))  # fmt: skip
    except TaskError as error:
        found["training"], found["steps"] = str(error), steps
    found["ranks"] = gathered(rank)  # the group still works after an error
    torch.save(found, folder / f"{rank}.pt")
    end_group()
    end_process()


def test_shares_make_the_whole_and_fail_as_a_whole(tmp_path) -> None:
    alone = look(0, 1, Quarters)
    torch.multiprocessing.spawn(process, (tmp_path, torch.get_num_threads()), nprocs=WORLD)
    shares = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(WORLD)]
    assert sorted(shares[0]["seen"] + shares[1]["seen"]) == sorted(2 * list(range(COUNT)))
    assert (len(shares[0]["seen"]), len(shares[1]["seen"])) == (2 * 12, 2 * 11)
    for share in shares:
        assert share["images"] == COUNT and share["seconds"] == shares[0]["seconds"] and share["ranks"] == [0, 1]
        for (view, metrics, samples), (same, expected, whole) in zip(share["rows"], alone["rows"], strict=True):
            assert view == same and metrics == expected and samples["ids"].tolist() == list(range(COUNT))
            assert torch.equal(samples["logits"], whole["logits"])
    assert [s["error"] for s in shares] == ["picture 9 is torn", "process 0: TaskError: picture 9 is torn"]
    shares_of = [list(StepBatches(0, 0, 9, BATCH, COUNT, rank, WORLD)) for rank in range(WORLD)]
    places = [(s, r) for r in range(WORLD) for s, share in enumerate(shares_of[r]) if 9 in dict(share)]
    first, torn = min(places)
    told = ["picture 9 is torn", f"process {torn}: TaskError: picture 9 is torn"]
    assert [s["training"] for s in shares] == (told if torn == 0 else told[::-1])
    assert shares[0]["steps"] == shares[1]["steps"] == list(range(1, first + 1))


def test_a_single_process_keeps_its_own_error() -> None:
    error = KeyError("x")
    try:
        with failing_together():
            raise error
    except KeyError as found:
        assert found is error
    assert gathered("a") == ["a"]


def test_out_of_memory_in_a_group_ends_the_process() -> None:
    """The launcher then ends the others, which wait for its gradients."""
    batch = Batch(torch.arange(4), torch.zeros(4, 3, 8, 8), None)
    group = SimpleNamespace(
        num_processes=2, process_index=1, no_sync=lambda module: nullcontext(), autocast=nullcontext
    )

    def full(*_: Any) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    with pytest.raises(SystemExit, match="process 1: out of memory at grid 2x2 with 4 images; --set recipe.accumulate"):
        _within_memory(full, batch, (2, 2), Recipe(batch=8), group, [], [], 0)
