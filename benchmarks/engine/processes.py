"""An error of one process of a group is an error of all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TypeVar

import torch

from tasks.contract import TaskError
from tasks.contract.meters import gathered

Item = TypeVar("Item")
END = object()


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


def in_step(found: Iterator[Item], device: torch.device | str) -> Iterator[Item]:
    """Items of `found`, as many in every process; where one cannot have its next, all stop before any computes with it.

    A training step exchanges gradients inside of `backward`, where a process that is left alone waits for ever.

    Raises: the process's own error, or a TaskError with that of another.

    Example: `for batch in in_step(iter(loader), "cuda"): train(batch)`
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        yield from found
        return
    while True:
        own: Exception | None = None
        item: object = END
        try:
            item = next(found, END)
        except Exception as error:
            own = error
        failed = torch.tensor(int(own is not None), device=device)  # the texts travel only when there are some
        torch.distributed.all_reduce(failed)
        if failed:
            with failing_together():
                if own is not None:
                    raise own
        if item is END:
            return
        yield item  # type: ignore[misc]
