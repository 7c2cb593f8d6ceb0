"""The training loop: one for all tasks."""

from __future__ import annotations

import contextlib
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
from benchmarks.engine.batches.forking import started
from benchmarks.engine.batches.prefetch import ahead
from benchmarks.engine.batches.resident import Residents
from benchmarks.engine.batches.skipping import CollateRead, Skipped, Skipping
from benchmarks.engine.bfloat16 import check_residual, residual_stream
from benchmarks.engine.finite import check_step
from benchmarks.engine.memory import free_memory, is_out_of_memory
from benchmarks.engine.randomness import generator, seed_of, training_indices
from benchmarks.engine.running.interrupts import deferred
from benchmarks.engine.running.processes import failing_together, in_step, of_main
from benchmarks.engine.suite import alone_only
from benchmarks.engine.training.checkpoints import load_checkpoint, save_checkpoint
from benchmarks.engine.training.compiled import CompiledStep, TaskStep, compiles, traced
from benchmarks.engine.training.ledger import Ledger
from benchmarks.engine.training.matrices import block_matrices, slow_products
from benchmarks.engine.training.optimizers import (
    Averaged,
    build_optimizer,
    clip_gradients,
    set_learning_rate,
)
from benchmarks.engine.training.per_example.clipping import ExampleClipping
from benchmarks.engine.training.statistics import tell_statistics
from benchmarks.engine.training.unused import freeze_unused, lock
from benchmarks.store import key_of
from tasks.contract import Batch, Recipe, Task, TaskError


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
    compiled: bool = False
    moved: list[str] = field(default_factory=list)  # augmentation that the device has done


class Drawn(Dataset):
    """`drawn[(index, epoch)]` -> (index, image, target), augmented by (seed, epoch, index).

    `blind`: the image is an empty tensor where the data set can give a target without decoding.
    """

    def __init__(self, dataset: Any, seed: int, blind: bool = False):
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
    compile: bool | None = None,
    features: Callable[[Grid], Tensor] | None = None,
    skip: bool = False,
    residents: Residents | None = None,
) -> Training:
    """Train `model` in place on the task's `train` split, from the checkpoint where there is one.

    Args:
        schedule: grid of each step.
        checkpoint: file written whole every `every_seconds` and on Ctrl-C; removed by the caller when no longer needed.
        progress: called with step, steps, images a second, and the loss's named scalars.
        compile: torch.compile the step; None: what `compiles` says. Where that fails a note says so, and it goes on.
        features: table of a locked tower's output for all training images at a grid; spares the image forward.
        skip: pass over pictures that cannot be read; they are counted in the result.
        residents: holds the pictures on the device where the data set offers them as they are stored.

    Out of memory cuts the micro-batches in two and repeats the step, where the loss may be cut.

    Raises:
        TaskError for an invalid recipe, or a checkpoint of another run; Diverged for a loss that is not finite.
        KeyboardInterrupt after the checkpoint is written.

    Example: `finetune(task, model, task.recipe, GridSchedule("fixed", ((8, 8),)), Accelerator())`
    """
    recipe.check()
    check_residual(recipe.residual, accelerator.mixed_precision)
    compile = compiles(accelerator.device, compile, recipe, len(set(schedule.grids)))
    task = task.in_training().training_on(accelerator.device.type)
    task = task.compiled() if compile else task
    dataset: Any = task.dataset("train")
    rank, world = accelerator.process_index, accelerator.num_processes
    if not len(dataset):
        raise TaskError(f"split 'train' of {task.card.name} is empty")
    if recipe.batch % (world * recipe.accumulate):
        cut = f"{world} processes x {recipe.accumulate} micro-batches"
        raise TaskError(f"batch {recipe.batch} cannot be cut into {cut}")
    if world > 1 and (why := alone_only(task)):
        raise TaskError(why)
    lock(model.to(accelerator.device), recipe)
    if world > 1:
        few = [Drawn(dataset, seed)[place] for place in training_indices(seed, 0, 2, len(dataset))]
        shown = task.augment(model, task.collate(few).to(accelerator.device), generator("batch", seed, 0, 0))
        freeze_unused(task, model, shown, schedule.grids[0], accelerator.autocast)
    optimizer = build_optimizer(model, recipe)
    average = Averaged(model, recipe.ema) if recipe.ema else None
    training = Training()
    # whatever moves the weights; else a folder of another run would be continued
    identity = key_of({"recipe": recipe.decisive(), "schedule": asdict(schedule), "seed": seed, "count": len(dataset)})
    if checkpoint and of_main(checkpoint.exists()):
        earlier = load_checkpoint(checkpoint, identity, model, optimizer, average, accelerator.device)
        training = Training(**earlier)
        training.resumed_at.append(training.steps)
    else:
        with accelerator.autocast():
            count, pictures = len(dataset), Drawn(dataset, seed)
            tell_statistics(task, model, pictures, count, schedule.grids, seed, accelerator.device, workers)
    training.moved = task.moved()
    step_module = accelerator.prepare(TaskStep(task, model))
    program = None
    if compile:
        step_module = program = CompiledStep(step_module, training.notes)
    if recipe.clip_per_example and recipe.clip is not None:
        step_module = ExampleClipping(task, model, step_module, recipe.clip, accelerator, training.notes)
    held = None
    if residents is not None and features is None and not skip:
        held = residents.of(task, dataset, accelerator.device, workers)
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
    saved_at, ledger = started, Ledger(accelerator.device)

    def told() -> None:
        """Read what the steps gave; a training that has gone astray ends here."""
        for step, values in ledger.read():
            check_step(values, step, recipe.lr)
            now = time.perf_counter()
            training.steps, training.seconds = step + 1, spent + now - started
            training.rate = (step + 1 - first) * recipe.batch / (now - started)
            training.losses.append(values["loss"])
            training.values = values
            training.compiled |= program is not None and program.used
            if progress:
                progress(step + 1, recipe.steps, training.rate, values)

    unsaved: list[Exception] = []

    def save() -> None:
        """Where the main process cannot, it tells the others of its group before the next step."""
        if checkpoint is None or not accelerator.is_main_process:
            return
        try:
            save_checkpoint(checkpoint, identity, model, optimizer, average, asdict(training))
        except Exception as error:
            if world == 1:
                raise
            unsaved.append(error)

    note = slow_products(recipe.matrices, accelerator.device, recipe.clip_per_example)
    if note and note not in training.notes:
        training.notes.append(note)
        print(f"  {note}", flush=True)
    lock(model.train(), recipe)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    with (
        deferred() as interrupted,
        traced(schedule) if compile else contextlib.nullcontext(),
        block_matrices(model, recipe.matrices, recipe.clip_per_example),
        residual_stream(model, recipe.residual, accelerator.mixed_precision),
    ):
        if held is not None:
            steps = held.steps(seed, first, recipe.steps, recipe.batch, rank, world)
        else:
            steps = ahead(_steps(loader, first, skipped, features, grids), accelerator.device)
        for step, batch in in_step(steps, accelerator.device, interrupted.is_set, unsaved):
            # dropout and drop path draw from the global generator: seeding each step makes a resume exact
            torch.manual_seed(seed_of("model", seed, step, rank))
            set_learning_rate(optimizer, recipe, step)
            grid = grids(step)
            with accelerator.autocast():
                batch = task.augment(model, batch, generator("batch", seed, step, rank))
            values, recipe = _within_memory(
                step_module, batch, grid, recipe, accelerator, parameters, training.notes,
                seed_of("model", seed, step, rank), program,
            )  # fmt: skip
            if recipe.clip and not recipe.clip_per_example:
                values["grad_norm"] = clip_gradients(parameters, recipe.clip)
            if not isinstance(values["loss"], Tensor) or not values["loss"].is_cuda:
                check_step(values, step, recipe.lr)  # before it moves a weight; a GPU's is read later
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if average:
                average.update(model, step)
            ledger.add(step, values)
            due = time.perf_counter() - saved_at >= every_seconds or step + 1 == recipe.steps
            if due or ledger.due:
                told()
            if due:
                save()
                saved_at = time.perf_counter()
        told()
        if training.steps < recipe.steps:
            save()
        with failing_together():
            if unsaved:
                raise unsaved[0]
        if training.steps < recipe.steps or interrupted.is_set():
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
    for step, found in enumerate(started(loader), first):
        batch, unread = (found, []) if isinstance(found, Batch) else found
        skipped.add(unread)
        if batch is None:
            raise TaskError(f"no picture of step {step} can be read: {unread[0].error}")
        if features is not None:
            batch.features = features(grids(step))[batch.ids]
        yield step, batch


def _within_memory(
    step_module: nn.Module | ExampleClipping,
    batch: Batch,
    grid: Grid,
    recipe: Recipe,
    accelerator: Accelerator,
    parameters: list[Tensor],
    notes: list[str],
    seed: int,
    program: CompiledStep | None = None,
) -> tuple[dict[str, float | Tensor], Recipe]:
    """`_gradients`, and the recipe with as many micro-batches as memory wants; without `program` once that fails.

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
            uncompiled = program is not None and not is_out_of_memory(error) and program.gives_up(error)
            if uncompiled and accelerator.num_processes > 1:
                raise TaskError(f"{notes[-1]}; run with --no-compile") from error  # others may wait for gradients
            if not uncompiled and (not is_out_of_memory(error) or fixed or size <= 1):
                raise
        for parameter in parameters:
            parameter.grad = None
        if uncompiled:
            torch.manual_seed(seed)
            continue
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
) -> dict[str, float | Tensor]:
    """Leave the gradient of the mean over the whole batch, all micro-batches and processes, in `.grad`.

    The means that come back are still in the making where a GPU makes them: to read one is to wait for it.
    """
    if isinstance(step_module, ExampleClipping):
        return step_module(batch, grid, parameters)
    size = -(-len(batch) // recipe.accumulate)
    pieces = [batch[i : i + size] for i in range(0, len(batch), size)] if recipe.accumulate > 1 else [batch]
    total: float | Tensor = 0.0
    sums: dict[str, float | Tensor] = {}
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        with contextlib.nullcontext() if last else accelerator.no_sync(step_module):
            with accelerator.autocast():
                out = step_module(piece, grid)
            count = _scalar(out["count"])
            # sums, not means: pieces with few labelled pixels must weigh little
            accelerator.backward(out["loss"].float() * (count.float() if isinstance(count, Tensor) else count))
        total = total + count
        _add(sums, out, count)
    if accelerator.num_processes > 1:
        found = [torch.as_tensor(v, device=accelerator.device, dtype=torch.float64) for v in (total, *sums.values())]
        total, *reduced = accelerator.reduce(torch.stack(found)).unbind()
        sums = dict(zip(sums, reduced, strict=True))
    total = total.clamp_min(1e-12) if isinstance(total, Tensor) else max(total, 1e-12)
    # process groups average gradients over processes; the mean over all counts is wanted
    gradients = [p.grad for p in parameters if p.grad is not None]
    torch._foreach_mul_(gradients, accelerator.num_processes / total)
    return {name: value / total for name, value in sums.items()}


def _scalar(value: Any) -> float | Tensor:
    """A number; a tensor of float64 where it lies on a GPU, which is not waited for."""
    if isinstance(value, Tensor) and value.is_cuda:
        return value.detach().double()
    return float(value.detach()) if isinstance(value, Tensor) else float(value)


def _add(sums: dict[str, float | Tensor], out: dict[str, Any], count: float | Tensor) -> None:
    for name, value in out.items():
        if name != "count":
            sums[name] = sums.get(name, 0.0) + _scalar(value) * count
