"""Training as promised: losses combine by count, a resume repeats, two processes are one."""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from backbones import build_backbone
from backbones.grids import GridSchedule
from benchmarks.engine.conformance.trying import require
from benchmarks.engine.running.processes import end_group, end_process
from benchmarks.engine.training.loop import finetune
from tasks.contract import Batch, Recipe, Task

STEPS, BATCH, WORLD = 4, 4, 2
CLOSE = 2e-3  # two processes sum in another order, and four steps of training enlarge it


class _Stopped(Exception):
    """In place of a kill."""


def by_count(task: Task, model: nn.Module, batch: Batch, grid: int) -> str:
    """The loss of a batch is the mean of its parts' losses, weighted by their counts; not so for coupled losses."""
    if task.recipe.coupled:
        return "coupled: it is never split"
    own, half = task.in_training(), len(batch) // 2
    model.eval()  # stochastic depth draws for each forward pass anew
    with torch.no_grad():
        whole, *parts = (own.loss(model, b, (grid, grid)) for b in (batch, batch[:half], batch[half:]))
    counts = [float(p["count"]) for p in parts]
    mean = sum(float(p["loss"]) * n for p, n in zip(parts, counts, strict=True)) / max(sum(counts), 1e-12)
    require(abs(mean - float(whole["loss"])) <= 1e-4 * max(1.0, abs(mean)), f"{float(whole['loss'])} is not {mean}")
    return ""


def short_recipe(recipe: Recipe) -> Recipe:
    """The recipe for a few steps, without what draws anew in each process."""
    few = {"steps": STEPS, "batch": BATCH, "warmup": 0, "accumulate": 1, "drop_path": 0.0, "mixup": 0.0}
    return recipe.replaced({**few, "candidates": ()})


def _train(task: Task, backbone: str, grids: tuple[int, ...], checkpoint: Path | None = None, stop: int = 0) -> Any:
    torch.manual_seed(0)
    task.recipe = short_recipe(task.recipe)
    model = task.in_training().model(build_backbone(backbone, pretrained=False))

    def progress(step: int, *_: Any) -> None:
        if step == stop:
            raise _Stopped

    done = finetune(
        task, model, task.recipe, GridSchedule("random", tuple((g, g) for g in grids)), Accelerator(cpu=True),
        checkpoint=checkpoint, every_seconds=0.0, progress=progress if stop else None,
    )  # fmt: skip
    return model, done.losses


def resumes(task: Task, backbone: str, grids: tuple[int, ...]) -> None:
    """A training that is stopped and goes on from its checkpoint leaves the weights of one that is not, to the bit."""
    whole, losses = _train(task, backbone, grids)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pt"
        with contextlib.suppress(_Stopped):
            _train(task, backbone, grids, path, stop=3)
        require(path.exists(), "no checkpoint was written")
        resumed, again = _train(task, backbone, grids, path)
    require(again == losses, f"losses {again} are not {losses}")
    expected = whole.state_dict()
    moved = [n for n, v in resumed.state_dict().items() if not torch.equal(v, expected[n])]
    require(not moved, f"{len(moved)} weights differ, the first is {moved[0] if moved else ''}")


def two_processes(task: Task, backbone: str, grids: tuple[int, ...]) -> str:
    """Two gloo processes have the losses of one."""
    if task.recipe.coupled and not task.gathers:
        return "coupled: it is refused on several processes"
    options = asdict(task.options)
    about = (type(task), str(task.root), options, task.seed, asdict(short_recipe(task.recipe)), backbone, grids)
    own = type(task)(task.root, options, task.seed)
    own.recipe = task.recipe
    _, alone = _train(own, backbone, grids)
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_process, (folder, about), nprocs=WORLD)
        shares = [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]
    for losses in shares:
        far = max(abs(a - b) for a, b in zip(losses, alone, strict=True))
        require(far <= CLOSE * max(1.0, max(map(abs, alone))), f"losses {losses} of two processes are not {alone}")
    return ""


def _process(rank: int, folder: str, about: tuple[Any, ...]) -> None:
    kind, root, options, seed, recipe, backbone, grids = about
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": WORLD, "LOCAL_WORLD_SIZE": WORLD, "MASTER_PORT": 1}
    os.environ |= {name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"}
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=WORLD)
    task = kind(root, options, seed)
    task.recipe = Recipe(**recipe)
    _, losses = _train(task, backbone, grids)
    torch.save(losses, Path(folder) / f"{rank}.pt")
    end_group()
    end_process()
