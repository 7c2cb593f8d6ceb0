"""What the processes of a group tell each other; in a single process they tell themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from tasks.task import TaskError


def gathered(value: Any) -> list[Any]:
    """The value of every process, in the order of their ranks. All of them must call it.

    Example: `sum(gathered(3))` is 6 with two processes
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


@contextlib.contextmanager
def failing_together() -> Iterator[None]:
    """An error of one process is raised in all; else the others would wait for it in their next exchange for ever.

    Raises: the process's own error, or a TaskError with that of another.

    Example: `with failing_together(): look_at(own_share)`
    """
    own: Exception | None = None
    try:
        yield
    except Exception as error:
        own = error
    errors = gathered(None if own is None else f"{type(own).__name__}: {own}")
    if own is not None:
        raise own
    for rank, text in enumerate(errors):
        if text is not None:
            raise TaskError(f"process {rank}: {text}")
