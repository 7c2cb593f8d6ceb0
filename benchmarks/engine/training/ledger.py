"""What the steps of a training gave, read from the device without making each step wait."""

from __future__ import annotations

import time

import torch
from torch import Tensor

MOST = 50  # steps between two readings on a GPU
SECONDS = 1.0


class Ledger:
    """Named scalars of the steps since the last reading.

    A GPU works behind the host: reading a number waits for all work before it, and the device then waits for the host.
    So the numbers of many steps are read together. On any other device they are read after each step.

    Example::

        ledger.add(step, {"loss": loss})
        if ledger.due:
            for step, values in ledger.read(): ...
    """

    def __init__(self, device: torch.device):
        self.most = MOST if device.type == "cuda" else 1
        self._steps: list[tuple[int, dict[str, float | Tensor]]] = []
        self._read_at = time.perf_counter()

    def add(self, step: int, values: dict[str, float | Tensor]) -> None:
        """Tensors may still be in the making; each is of one element."""
        self._steps.append((step, values))

    @property
    def due(self) -> bool:
        """Whether it is time to read."""
        return len(self._steps) >= self.most or time.perf_counter() - self._read_at > SECONDS

    def read(self) -> list[tuple[int, dict[str, float]]]:
        """The steps since the last reading as numbers, in order."""
        every = [v for _, values in self._steps for v in values.values()]
        tensors = [v.detach().double().reshape(()) for v in every if isinstance(v, Tensor) and _on_gpu(v)]
        numbers = iter(torch.stack(tensors).tolist() if tensors else ())
        found = [
            (step, {name: next(numbers) if _on_gpu(v) else float(v) for name, v in values.items()})
            for step, values in self._steps
        ]
        self._steps, self._read_at = [], time.perf_counter()
        return found


def _on_gpu(value: float | Tensor) -> bool:
    return isinstance(value, Tensor) and value.is_cuda
