"""An error of one process of a group is an error of all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tasks.meters import gathered
from tasks.task import TaskError


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
