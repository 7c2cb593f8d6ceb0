"""How far a long look at data is: told to whoever watches, on standard error for one who waits."""

from __future__ import annotations

import contextlib
import contextvars
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

PATIENCE = 2.0  # seconds before anything is said: most looks are shorter, or remembered
EVERY = {True: 0.2, False: 30.0}  # seconds between two lines, on a terminal and in a file
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


@contextlib.contextmanager
def progress_shown() -> Iterator[None]:
    """Within it long looks at data say how far they are, and how long they will take.

    Example: `with progress_shown(): plan(suite, store, root)`
    """
    terminal = sys.stderr.isatty()
    begun, said, what_before = time.monotonic(), 0.0, ""

    def show(what: str, done: int, of: int) -> None:
        nonlocal begun, said, what_before
        now = time.monotonic()
        if what != what_before or done == 0:
            begun, what_before = now, what
        elapsed = now - begun
        if elapsed < PATIENCE or (now - said < EVERY[terminal] and done < of):
            return
        said = now
        left = elapsed / done * (of - done) if done else 0.0
        text = f"{what}: {done:,} of {of:,}" + (f", {left:.0f} s left" if done < of else f" in {elapsed:.0f} s")
        end = "\n" if done == of or not terminal else ""
        print(f"\r\x1b[K{text}" if terminal else text, end=end, file=sys.stderr, flush=True)

    with watched(show):
        yield
