"""Per-example clipping: the mean of gradients that are each scaled to a common norm first (OWL-ViT's recipe)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from backbones.grids import Grid
from benchmarks.engine.memory import free_memory, is_out_of_memory
from benchmarks.engine.training.optimizers import clip_gradients
from benchmarks.engine.training.per_example.gradients import Dense, ExampleGradients, Form, wide
from benchmarks.engine.training.per_example.layers import Inseparable, SeparateGradients
from tasks.contract import Batch, Task

MOST_EXAMPLES = 64  # a pass: more gain nothing
HOST_BYTES = 1 << 30  # of gradients on a CPU; on a GPU a quarter of its memory


class ExampleClipping:
    """Leaves in `.grad` the mean over all examples and processes of gradients clipped to a norm of at most `clip`.

    Gradients of many examples come out of one pass (`SeparateGradients` under `torch.func.vmap`), in chunks that memory
    bounds. A task that cannot be passed over so is trained one example a pass, which gives the same; a line says it.
    Each example's loss must be its own: that of a batch of one.

    Args:
        task, model: what is trained; `task.loss` of a batch of one is the loss of an example.
        step_module: the same as a process group or a compiler wraps it, for passes of one example.
        clip: largest norm of an example's gradient over all parameters.
        notes: takes a line for each fallback.

    Example: `values = ExampleClipping(task, model, step_module, 1.0, accelerator, notes)(batch, (8, 8), parameters)`
    """

    def __init__(
        self, task: Task, model: nn.Module, step_module: nn.Module, clip: float, accelerator: Accelerator,
        notes: list[str],
    ):  # fmt: skip
        self.task, self.model, self.step_module, self.clip = task, model, step_module, clip
        self.accelerator, self.notes = accelerator, notes
        self.together = True  # until a pass over many fails
        self._chunk: int | None = None
        self._buffers: dict[int, list[Tensor]] = {}

    def __call__(self, batch: Batch, grid: Grid, parameters: Sequence[Tensor]) -> dict[str, float | Tensor]:
        """The loss's named scalars, means over all examples; gradients are in `.grad`.

        On a GPU they are tensors, still in the making: to read one is to wait for it.

        Raises: what the task raises; the device's own error where a single example does not fit.
        """
        sums = Sums(parameters)
        if not self.together:
            self._one_by_one(batch, grid, sums)
            return sums.share(self.accelerator.num_processes)
        noise = _noise(self.accelerator.device)
        try:
            self._in_chunks(batch, grid, sums)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            why, self.together = _line(error), False
        if not self.together:
            _set_noise(noise, self.accelerator.device)  # as in a run that is resumed here
            sums = Sums(parameters)
            self._one_by_one(batch, grid, sums)  # raises what is wrong with the task itself
            self._say(f"per-example clipping takes one pass an example: {why}")
        return sums.share(self.accelerator.num_processes)

    def _in_chunks(self, batch: Batch, grid: Grid, sums: Sums) -> None:
        done = 0
        while done < len(batch):
            size = self._chunk = min(self._chunk or self._largest_chunk(sums.parameters), len(batch))
            chunk = batch[done : done + size]
            try:
                values, gradients = self.gradients(chunk, grid, sums.parameters)
                factors = gradients.factors(self.clip)
            except RuntimeError as error:
                if not is_out_of_memory(error) or size == 1:
                    raise
            else:
                sums.add(gradients, factors, values)
                done += len(chunk)
                continue
            self._chunk = size // 2
            self._say(f"out of memory at grid {grid[0]}x{grid[1]}: passes of {size} examples halved to {self._chunk}")
            free_memory()

    def gradients(
        self, batch: Batch, grid: Grid, parameters: Sequence[Tensor]
    ) -> tuple[dict[str, Tensor], ExampleGradients]:
        """Scalars [C] of each example's loss, and its gradients.

        Raises: Inseparable, or what torch raises for a loss that cannot be traced for each example.
        """
        tensors = list(_examples((batch.ids, batch.images, batch.targets, batch.features), len(batch)))

        def of_one(values: Sequence[Tensor]) -> dict[str, Tensor]:
            left = iter(values)
            alone = batch.mapped(lambda _: next(left).unsqueeze(0))
            with self.accelerator.autocast():
                out = self.task.loss(self.model, alone, grid)
            return {k: torch.as_tensor(v, device=batch.ids.device).float() for k, v in out.items() if k != "count"}

        with SeparateGradients(len(batch), self._buffers) as mode:
            values = torch.func.vmap(of_one, randomness="different")(tensors)
        return {k: v.detach() for k, v in values.items()}, mode.gradients(values["loss"], parameters)

    def _one_by_one(self, batch: Batch, grid: Grid, sums: Sums) -> None:
        with self.accelerator.no_sync(self.step_module):
            for i in range(len(batch)):
                with self.accelerator.autocast():
                    out = self.step_module(batch[i : i + 1], grid)
                self.accelerator.backward(out["loss"].float())
                clip_gradients(sums.parameters, self.clip)
                values = {k: torch.as_tensor(v).detach().float().reshape(1) for k, v in out.items() if k != "count"}
                forms: list[list[Form]] = [[] if p.grad is None else [Dense(p.grad[None])] for p in sums.parameters]
                unit = torch.ones(1, device=self.accelerator.device, dtype=wide(sums.parameters[0].dtype))
                sums.add(ExampleGradients(sums.parameters, 1, forms), unit, values)
                for parameter in sums.parameters:
                    parameter.grad = None

    def _largest_chunk(self, parameters: Sequence[Tensor]) -> int:
        """By the bytes of the gradients, not by what is free: the same on every run."""
        device = self.accelerator.device
        tables = {id(m.weight) for m in self.model.modules() if isinstance(m, nn.Embedding)}
        each = sum(p.numel() * p.element_size() for p in parameters if id(p) not in tables)
        room = torch.cuda.get_device_properties(device).total_memory // 4 if device.type == "cuda" else HOST_BYTES
        return max(1, min(MOST_EXAMPLES, room // max(each, 1)))

    def _say(self, note: str) -> None:
        self.notes.append(note)
        print(f"  {note}", flush=True)


class Sums:
    """Clipped gradients and scalars added up in one flat buffer, so that one exchange shares them between processes."""

    def __init__(self, parameters: Sequence[Tensor]):
        self.parameters = list(parameters)
        self.names: list[str] = []
        self._flat = self._numbers = torch.empty(0)  # made when the names of the scalars are known
        self._gradients: list[Tensor] = []

    @torch.no_grad()
    def add(self, gradients: ExampleGradients, factors: Tensor, values: Mapping[str, Tensor]) -> None:
        """Gradients of C examples, weighted by `factors` [C]; values [C]."""
        if not self.names:
            self._allocate(sorted(values))
        gradients.add_to(self._gradients, factors)
        self._numbers += torch.stack([torch.ones_like(factors), *(values[n] for n in self.names)]).sum(1)

    @torch.no_grad()
    def share(self, processes: int = 1) -> dict[str, float | Tensor]:
        """Put the means over the examples of all processes into `.grad`; returns those of the values."""
        if processes > 1:
            torch.distributed.all_reduce(self._flat)
        self._flat[1:] /= self._flat[0]
        for parameter, gradient in zip(self.parameters, self._gradients, strict=True):
            parameter.grad = gradient.to(parameter.dtype)
        means = self._numbers[1:].clone()  # the buffer goes with the gradients
        return dict(zip(self.names, means.unbind() if means.is_cuda else means.tolist(), strict=True))

    def _allocate(self, names: list[str]) -> None:
        self.names = names
        sizes = [1 + len(names), *(p.numel() for p in self.parameters)]
        first = self.parameters[0]
        self._flat = torch.zeros(sum(sizes), device=first.device, dtype=wide(first.dtype))
        self._numbers, *parts = self._flat.split(sizes)
        self._gradients = [part.view_as(p) for part, p in zip(parts, self.parameters, strict=True)]


def _examples(value: Any, count: int) -> Iterable[Tensor]:
    """The tensors of a batch, in the order of `Batch.mapped`.

    Raises: Inseparable for anything that is not a tensor with the examples along its first axis.
    """
    if isinstance(value, Tensor):
        if not value.ndim or len(value) != count:
            raise Inseparable(f"a tensor of shape {list(value.shape)} in a batch of {count}")
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _examples(part, count)
    elif isinstance(value, tuple):
        for part in value:
            yield from _examples(part, count)
    elif isinstance(value, list):
        raise Inseparable("examples of different sizes")


def _noise(device: torch.device) -> tuple[Tensor, ...]:
    return (torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else []))


def _set_noise(states: tuple[Tensor, ...], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


def _line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:160]}" if text else type(error).__name__
