"""An error of one process of a group is an error of all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar, cast

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


def in_step(items: Iterator[Item], device: torch.device | str, stop: Callable[[], bool]) -> Iterator[Item]:
    """Items, as many in every process; where one cannot have its next, or is to stop, all stop before any computes.

    A training step exchanges gradients inside of `backward`, where a process that is left alone waits for ever.

    Raises: the process's own error, or a TaskError with that of another.

    Example: `for batch in in_step(iter(loader), "cuda", interrupted.is_set): train(batch)`
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        for item in items:
            if stop():
                return
            yield item
        return
    while True:
        own: Exception | None = None
        following: Item | object = END
        try:
            following = next(items, END)
        except Exception as error:
            own = error
        # the texts of errors travel only when there are some
        flags = torch.tensor([own is not None, stop()], dtype=torch.int32, device=device)
        torch.distributed.all_reduce(flags)
        failed, stopped = flags.tolist()
        if failed:
            with failing_together():
                if own is not None:
                    raise own
        if stopped or following is END:
            return
        yield cast(Item, following)
