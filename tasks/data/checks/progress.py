"""How far a long look at data is; whoever watches sets `watch`, and nothing is said to no one."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from typing import Any

_watcher: contextvars.ContextVar[Callable[[str, int, int], None] | None] = contextvars.ContextVar(
    "watcher", default=None
)


@contextlib.contextmanager
def watched(show: Callable[[str, int, int], None]) -> Iterator[None]:
    """Within it `show(what, done, of)` is called while data are read.

    Example: `with watched(lambda what, done, of: print(what, done, of)): task.fingerprint("val")`
    """
    token = _watcher.set(show)
    try:
        yield
    finally:
        _watcher.reset(token)


def tracked(items: Sequence[Any], what: str) -> Iterator[Any]:
    """The items one by one, and the watcher told of each."""
    show = _watcher.get()
    for done, item in enumerate(items):
        if show is not None:
            show(what, done, len(items))
        yield item
    if show is not None and len(items):
        show(what, len(items), len(items))
