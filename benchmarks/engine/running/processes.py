"""An error of one process of a group is an error of all."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn, TypeVar, cast

import torch

from benchmarks.store.failures import one_line
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
    errors = gathered(None if own is None else one_line(own))  # whose own text may fail
    if own is not None:
        raise own
    for rank, text in enumerate(errors):
        if text is not None:
            raise TaskError(f"process {rank}: {text}")


def of_main(value: Item) -> Item:
    """The main process's value, in all processes of a group: they must decide alike.

    Example: `if of_main(path.exists()): ...`
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    values = [value]
    torch.distributed.broadcast_object_list(values)
    return values[0]


def end_group() -> None:
    """Leave the process group, all processes together; nothing is done where there is none.

    A process that ends while another still computes closes the connections that the other waits on.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def end_process(status: int = 0) -> NoReturn:
    """End this process of a group at once, after `end_group`, when all is written: the interpreter is not taken down.

    An interpreter that is taken down under the threads of gloo ends now and then in SIGABRT, "terminate called without
    an active exception". Known of it: where `DistributedDataParallel` has trained, its reducer keeps references to the
    group that no Python object has, so that `destroy_process_group` (and `abort`, and `shutdown`) joins none of
    `gloo_tcp_loop`, `pt_gloo_runloop` and `pt_tcpstore_uv`; without it they are joined with the last reference (torch
    2.14, read off /proc/self/task). A thread that lets go of a tensor while the interpreter ends is made to leave by
    `pthread_exit`, which unwinds through a destructor, and that is `std::terminate` (pytorch issues 38228 and 117762,
    both open; an exit handler was tried upstream, pull request 179291, and given up). Not shown: a trace of the abort
    itself, which has not come back since.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a log on a disk that is full, a reader that has gone
            stream.flush()
    os._exit(status)


def in_step(
    items: Iterator[Item], device: torch.device | str, stop: Callable[[], bool], failed: Sequence[Exception] = ()
) -> Iterator[Item]:
    """Items, as many in every process; where one cannot have its next, or is to stop, all stop before any computes.

    A training step exchanges gradients inside of `backward`, where a process that is left alone waits for ever.

    Args: failed: errors of what this process did besides, looked at before each item.

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
        own: Exception | None = failed[0] if failed else None
        following: Item | object = END
        if own is None:
            try:
                following = next(items, END)
            except Exception as error:
                own = error
        # the texts of errors travel only when there are some
        flags = torch.tensor([own is not None, stop()], dtype=torch.int32, device=device)
        torch.distributed.all_reduce(flags)
        any_failed, any_stopped = flags.tolist()
        if any_failed:
            with failing_together():
                if own is not None:
                    raise own
        if any_stopped or following is END:
            return
        yield cast(Item, following)
