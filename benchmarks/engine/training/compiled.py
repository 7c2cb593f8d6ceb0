"""A training step as a module, and as a program that torch.compile makes of it."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import nn

from backbones.grids import Grid, GridSchedule
from benchmarks.store.failures import text_of
from tasks.contract import Batch, Recipe, Task

RECOMPILE_MARGIN = 8  # over one trace a grid: a last smaller micro-batch, gradients on and off
# Of each grid. A step of ViT-B at grid 15 is 57 ms shorter for 512 pictures (results/measured/bench/gpu.md); a trace is
# taken to cost half a minute
WORTH_STEPS = 500
COMPILERS = ("torch._dynamo", "torch._inductor", "torch._functorch", "triton")


def compiles(device: torch.device, asked: bool | None, recipe: Recipe, grids: int) -> bool:
    """Whether a training is compiled: as asked, else on a GPU where it is long enough for each of its grids.

    Per-example clipping is not: its one pass over many examples is no program that a compiler sees.

    Example: `compiles(torch.device("cuda"), None, Recipe(steps=20_000), grids=10)`
    """
    if asked is not None:
        return asked
    return device.type == "cuda" and not recipe.clip_per_example and recipe.steps >= WORTH_STEPS * grids


class TaskStep(nn.Module):
    """The module that process groups and autocast wrap: its `forward` is the task's loss.

    Calling methods of the unwrapped model would train the processes apart without a word.
    """

    def __init__(self, task: Task, model: nn.Module):
        super().__init__()
        self.task, self.model = task, model

    def forward(self, batch: Batch, grid: Grid) -> dict[str, Any]:
        return self.task.loss(self.model, batch, grid)


class CompiledStep(nn.Module):
    """A step that is traced once for each grid, until a compiler fails: from then on it runs as it was given.

    Example: `step = CompiledStep(TaskStep(task, model), notes); step(batch, (8, 8))["loss"]`
    """

    _compiled: Any

    def __init__(self, plain: nn.Module, notes: list[str]):
        super().__init__()
        torch._dynamo.reset()  # traces of an earlier training of this process count against the same limit
        self.plain, self.notes = plain, notes
        self.used = False
        # a grid is a number that shapes are made of
        self.__dict__["_compiled"] = torch.compile(plain, dynamic=False)

    def forward(self, batch: Batch, grid: Grid) -> dict[str, Any]:
        if self._compiled is None:
            return self.plain(batch, grid)
        found = self._compiled(batch, grid)
        self.used = True
        return found

    def no_sync(self) -> contextlib.AbstractContextManager[Any]:
        """As of a process group's wrapper, which accelerate looks for."""
        return getattr(self.plain, "no_sync", contextlib.nullcontext)()

    def gives_up(self, error: BaseException) -> bool:
        """True where an error is a compiler's, and the step can be repeated without it, which is printed and noted."""
        if self._compiled is None or not from_compiler(error):
            return False
        self.__dict__["_compiled"] = None
        why = " ".join(text_of(error).split("\n")[:2])  # the first line names a backend, the second what it raised
        self.notes.append(f"not compiled, torch.compile failed: {why[:200]}")
        print(f"  {self.notes[-1]}", flush=True)
        return True


def from_compiler(error: BaseException) -> bool:
    """Whether an error was raised by torch.compile and what it calls, not by the step that it compiles."""
    kinds = (kind.__module__ for kind in type(error).__mro__)
    return any(module == c or module.startswith(f"{c}.") for module in kinds for c in COMPILERS)


def traced(schedule: GridSchedule) -> contextlib.AbstractContextManager[None]:
    """Let torch.compile trace each grid anew; past its limit it would run eagerly without a word."""
    from torch._dynamo import config

    return config.patch(recompile_limit=max(config.recompile_limit, len(set(schedule.grids)) + RECOMPILE_MARGIN))
