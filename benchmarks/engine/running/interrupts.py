"""Ctrl-C, a scheduler's SIGTERM and a closed terminal stop a run where nothing is lost."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.store.failures import text_of

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Every signal that asks a process to end raises KeyboardInterrupt, as Ctrl-C does.

    Example: `with stopping(): runner.run()`
    """

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    with _handled(stop):
        yield


def while_stopping(error: BaseException) -> bool:
    """Whether an error came up on the way out of a stop: that of a process which died of the same signal, say.

    Example: `while_stopping(error)` is True where `error.__context__` is a KeyboardInterrupt
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, KeyboardInterrupt):
            return True
        seen.add(id(cause))
        cause = cause.__context__
    return False


@contextlib.contextmanager
def deferred() -> Iterator[threading.Event]:
    """Such a signal sets the event, so that a step can end and be kept; a second one raises KeyboardInterrupt at once.

    Raises: KeyboardInterrupt in place of an error that the signal itself has caused.

    Example: `with deferred() as interrupted: train_until(interrupted.is_set)`
    """
    event = threading.Event()

    def stop(number: int, frame: Any) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    with _handled(stop):
        try:
            yield event
        except RuntimeError as error:
            # a scheduler's signal goes to the processes that decode as well, and they may be the first to die of it
            if event.wait(1.0 if "killed by signal: Terminated" in text_of(error) else 0.0):
                raise KeyboardInterrupt from error
            raise


@contextlib.contextmanager
def _handled(handler: Callable[[int, Any], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    # what is ignored stays so: nohup, or a job that a script has put into the background
    taken = [s for s in SIGNALS if signal.getsignal(s) is not signal.SIG_IGN]
    before = {s: signal.signal(s, handler) for s in taken}
    try:
        yield
    finally:
        for number, kept in before.items():
            signal.signal(number, kept)
