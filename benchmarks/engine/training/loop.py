"""The training loop: one for all tasks."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from backbones.grids import Grid, GridSchedule
from benchmarks.engine.batches.prefetch import ahead
from benchmarks.engine.batches.skipping import CollateRead, Skipped, Skipping
from benchmarks.engine.memory import free_memory, is_out_of_memory
from benchmarks.engine.processes import in_step
from benchmarks.engine.randomness import generator, seed_of, training_indices
from benchmarks.engine.training.optimizers import (
    Averaged,
    build_optimizer,
    check_recipe,
    clip_gradients,
    set_learning_rate,
)
from benchmarks.engine.training.per_example.clipping import ExampleClipping
from benchmarks.store import key_of, write_atomically
from tasks.contract import Batch, Recipe, Task, TaskError

RECOMPILE_MARGIN = 8  # over one trace a grid: a last smaller micro-batch, gradients on and off


class Diverged(TaskError):
    """The loss is no longer a number."""


@dataclass
class Training:
    """What a training run leaves: `seconds` of all its processes, images a second, loss (running mean) by step."""

    steps: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    resumed_at: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    values: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    skipped: dict[str, Any] = field(default_factory=dict)


class TaskStep(nn.Module):
    """The module that process groups and autocast wrap: its `forward` is the task's loss.

    Calling methods of the unwrapped model would train the processes apart without a word.
    """

    def __init__(self, task: Task, model: nn.Module):
        super().__init__()
        self.task, self.model = task, model

    def forward(self, batch: Batch, grid: Grid) -> dict[str, Any]:
        return self.task.loss(self.model, batch, grid)


class Drawn(Dataset):
    """`drawn[(index, epoch)]` -> (index, image, target), augmented by (seed, epoch, index).

    `blind`: the image is an empty tensor where the data set can give a target without decoding.
    """

    def __init__(self, dataset: Dataset, seed: int, blind: bool = False):
        self.dataset, self.seed, self.blind = dataset, seed, blind and hasattr(dataset, "target")

    def __getitem__(self, place: tuple[int, int]) -> tuple[int, Any, Any]:
        index, epoch = place
        random = generator("sample", self.seed, epoch, index)
        if self.blind:
            return index, torch.empty(0, dtype=torch.uint8), self.dataset.target(index, random)
        if hasattr(self.dataset, "sample"):
            return (index, *self.dataset.sample(index, random))
        return (index, *self.dataset[index])


class StepBatches:
    """Batch sampler: the (index, epoch) pairs of each step from `first` on, this process's share of them."""

    def __init__(self, seed: int, first: int, steps: int, batch: int, count: int, rank: int, world: int):
        self.seed, self.first, self.steps, self.batch, self.count = seed, first, steps, batch, count
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return self.steps - self.first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.first, self.steps):
            yield training_indices(self.seed, step, self.batch, self.count)[self.rank :: self.world]


def finetune(
    task: Task,
    model: nn.Module,
    recipe: Recipe,
    schedule: GridSchedule,
    accelerator: Accelerator,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    every_seconds: float = 60.0,
    workers: int = 0,
    progress: Callable[[int, int, float, dict[str, float]], None] | None = None,
    compile: bool = False,
    features: Callable[[Grid], Tensor] | None = None,
    skip: bool = False,
) -> Training:
    """Train `model` in place on the task's `train` split, from the checkpoint where there is one.

    Args:
        schedule: grid of each step.
        checkpoint: file written whole every `every_seconds` and on Ctrl-C; removed by the caller when no longer needed.
        progress: called with step, steps, images a second, and the loss's named scalars.
        features: table of a locked tower's output for all training images at a grid; spares the image forward.
        skip: pass over pictures that cannot be read; they are counted in the result.

    Out of memory cuts the micro-batches in two and repeats the step, where the loss may be cut.

    Raises:
        TaskError for a recipe that cannot be, or a checkpoint of another run; Diverged for a loss that is no number.
        KeyboardInterrupt after the checkpoint is written.

    Example: `finetune(task, model, task.recipe, GridSchedule("fixed", ((8, 8),)), Accelerator())`
    """
    check_recipe(recipe)
    dataset, rank, world = task.dataset("train"), accelerator.process_index, accelerator.num_processes
    if not len(dataset):
        raise TaskError(f"split 'train' of {task.card.name} is empty")
    if recipe.batch % (world * recipe.accumulate):
        cut = f"{world} processes x {recipe.accumulate} micro-batches"
        raise TaskError(f"batch {recipe.batch} cannot be cut into {cut}")
    if recipe.coupled and world > 1:
        raise TaskError("a coupled loss sees one process's images only; run it on one process")
    model.to(accelerator.device)
    optimizer = build_optimizer(model, recipe)
    average = Averaged(model, recipe.ema) if recipe.ema else None
    training = Training()
    # whatever moves the weights; else a folder of another run would be continued
    identity = key_of({"recipe": asdict(recipe), "schedule": asdict(schedule), "seed": seed, "count": len(dataset)})
    if checkpoint and checkpoint.exists():
        _load(checkpoint, identity, model, optimizer, average, training, accelerator.device)
    step_module = accelerator.prepare(TaskStep(task, model))
    if compile:
        torch._dynamo.reset()  # traces of an earlier training of this process count against the same limit
        step_module = torch.compile(step_module, dynamic=False)  # a grid is a number that shapes are made of
    if recipe.clip_per_example:
        step_module = ExampleClipping(task, model, step_module, recipe.clip, accelerator, training.notes)
    batches = StepBatches(seed, training.steps, recipe.steps, recipe.batch, len(dataset), rank, world)
    drawn: Dataset = Drawn(dataset, seed, blind=features is not None)
    loader = DataLoader(
        Skipping(drawn) if skip else drawn, batch_sampler=batches, num_workers=workers,
        collate_fn=CollateRead(task.collate) if skip else task.collate, generator=generator("order", seed, 0),
        pin_memory=accelerator.device.type == "cuda",
    )  # fmt: skip
    skipped = Skipped("train")

    def grids(step: int) -> Grid:
        return schedule.grid(step + 1, recipe.steps)

    first, started, spent = training.steps, time.perf_counter(), training.seconds
    saved_at = started
    model.train()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    with _interrupts() as interrupted, _traced(schedule) if compile else contextlib.nullcontext():
        steps = ahead(_steps(loader, first, skipped, features, grids), accelerator.device)
        for step, batch in in_step(steps, accelerator.device):
            # dropout and drop path draw from the global generator: seeding each step makes a resume exact
            torch.manual_seed(seed_of("model", seed, step, rank))
            set_learning_rate(optimizer, recipe, step)
            grid = grids(step)
            with accelerator.autocast():
                batch = task.augment(model, batch, generator("batch", seed, step, rank))
            values, recipe = _within_memory(
                step_module, batch, grid, recipe, accelerator, parameters, training.notes,
                seed_of("model", seed, step, rank),
            )  # fmt: skip
            if not math.isfinite(values["loss"]):
                raise Diverged(f"loss is {values['loss']} at step {step}: lower the learning rate ({recipe.lr})")
            if recipe.clip and not recipe.clip_per_example:
                values["grad_norm"] = clip_gradients(parameters, recipe.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if average:
                average.update(model, step)
            now = time.perf_counter()
            training.steps, training.seconds = step + 1, spent + now - started
            training.rate = (step + 1 - first) * recipe.batch / (now - started)
            training.losses.append(values["loss"])
            training.values = values
            if progress:
                progress(step + 1, recipe.steps, training.rate, values)
            due = now - saved_at >= every_seconds or interrupted.is_set() or step + 1 == recipe.steps
            if checkpoint and due and accelerator.is_main_process:
                _save(checkpoint, identity, model, optimizer, average, training)
                saved_at = time.perf_counter()
            if interrupted.is_set():
                raise KeyboardInterrupt
    if average:
        average.copy_to(model)
    skipped.merge()
    if skipped.errors:
        training.skipped = skipped.as_row()
        training.notes.append(skipped.note(len(dataset)))
    return training


def _steps(
    loader: DataLoader,
    first: int,
    skipped: Skipped,
    features: Callable[[Grid], Tensor] | None,
    grids: Callable[[int], Grid],
) -> Iterator[tuple[int, Batch]]:
    """Each step and its batch, with what a locked tower gave for it.

    Raises: TaskError for a step of which no picture can be read.
    """
    for step, found in enumerate(loader, first):
        batch, unread = (found, []) if isinstance(found, Batch) else found
        skipped.add(unread)
        if batch is None:
            raise TaskError(f"no picture of step {step} can be read: {unread[0].error}")
        if features is not None:
            batch.features = features(grids(step))[batch.ids]
        yield step, batch


def _traced(schedule: GridSchedule) -> contextlib.AbstractContextManager[None]:
    """Let torch.compile trace each grid anew; past its limit it would run eagerly without a word."""
    from torch._dynamo import config

    return config.patch(recompile_limit=max(config.recompile_limit, len(set(schedule.grids)) + RECOMPILE_MARGIN))


def _within_memory(
    step_module: nn.Module | ExampleClipping,
    batch: Batch,
    grid: Grid,
    recipe: Recipe,
    accelerator: Accelerator,
    parameters: list[Tensor],
    notes: list[str],
    seed: int,
) -> tuple[dict[str, float], Recipe]:
    """`_gradients`, and the recipe with as many micro-batches as memory wants.

    Raises: the device's own error where a single image does not fit or the loss may not be cut. SystemExit in a group:
    the others wait in an exchange of gradients, and the launcher ends them when this process is gone.
    """
    fixed = recipe.coupled or isinstance(step_module, ExampleClipping) or batch.features is not None
    while True:
        try:
            return _gradients(step_module, batch, grid, recipe, accelerator, parameters), recipe
        except RuntimeError as error:
            size = -(-len(batch) // recipe.accumulate)
            if is_out_of_memory(error) and accelerator.num_processes > 1:
                here = f"process {accelerator.process_index}: out of memory at grid {grid[0]}x{grid[1]}"
                raise SystemExit(f"error: {here} with {size} images; --set recipe.accumulate higher") from error
            if not is_out_of_memory(error) or fixed or size <= 1:
                raise
        for parameter in parameters:
            parameter.grad = None
        recipe = replace(recipe, accumulate=2 * recipe.accumulate)
        note = f"out of memory at grid {grid[0]}x{grid[1]}: micro-batches of {size} images halved to {-(-size // 2)}"
        notes.append(note)
        print(f"  {note}", flush=True)
        free_memory()
        torch.manual_seed(seed)  # dropout as in the first try


def _gradients(
    step_module: nn.Module | ExampleClipping,
    batch: Batch,
    grid: Grid,
    recipe: Recipe,
    accelerator: Accelerator,
    parameters: list[Tensor],
) -> dict[str, float]:
    """Leave the gradient of the mean over the whole batch, all micro-batches and processes, in `.grad`."""
    if isinstance(step_module, ExampleClipping):
        return step_module(batch, grid, parameters)
    size = -(-len(batch) // recipe.accumulate)
    pieces = [batch[i : i + size] for i in range(0, len(batch), size)] if recipe.accumulate > 1 else [batch]
    total, sums = 0.0, {}
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        with contextlib.nullcontext() if last else accelerator.no_sync(step_module):
            with accelerator.autocast():
                out = step_module(piece, grid)
            count = float(out["count"])
            # sums, not means: pieces with few labelled pixels must weigh little
            accelerator.backward(out["loss"].float() * count)
        total += count
        _add(sums, out, count)
    shared = accelerator.reduce(torch.tensor([total, *sums.values()], device=accelerator.device, dtype=torch.float64))
    total = max(float(shared[0]), 1e-12)
    # process groups average gradients over processes; the mean over all counts is wanted
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(accelerator.num_processes / total)
    return {name: float(value) / total for name, value in zip(sums, shared[1:], strict=True)}


def _add(sums: dict[str, float], out: dict[str, Any], count: float) -> None:
    for name, value in out.items():
        if name != "count":
            sums[name] = sums.get(name, 0.0) + float(torch.as_tensor(value).detach()) * count


def _save(
    path: Path, identity: str, model: nn.Module, optimizer: Any, average: Averaged | None, training: Training
) -> None:
    state = {
        "identity": identity, "model": model.state_dict(), "optimizer": optimizer.state_dict(),
        "average": average.values if average else None, "training": asdict(training),
    }  # fmt: skip
    write_atomically(path, lambda partial: torch.save(state, partial))


def open_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """What a checkpoint holds; nothing in it is run.

    Raises: TaskError for a torn or foreign file.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # pickle's, zip's and torch's own; their texts advise to run what is inside
        raise TaskError(f"{path} is torn or no checkpoint of ours ({type(error).__name__}); remove it") from error


def _load(
    path: Path,
    identity: str,
    model: nn.Module,
    optimizer: Any,
    average: Averaged | None,
    training: Training,
    device: torch.device,
) -> None:
    state = open_checkpoint(path, device)
    if state["identity"] != identity:
        raise TaskError(f"{path} belongs to another recipe, schedule, seed or data set; remove it to train anew")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    if average:
        average.load(state["average"])
    for name, value in state["training"].items():
        setattr(training, name, value)
    training.resumed_at.append(training.steps)


@contextlib.contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Ctrl-C and a scheduler's SIGTERM wait for the end of the step; a second Ctrl-C stops at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def stop(number: int, frame: Any) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    except RuntimeError as error:
        if event.is_set():  # a scheduler's signal goes to the processes that decode as well, and they die of it
            raise KeyboardInterrupt from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
