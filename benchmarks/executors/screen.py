"""A terminal that several processes share: lines that stay above, below them one line of progress a process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import IO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from benchmarks.engine.running.lines import PROGRESS


class Screen:
    """Shows the lines of this process and of its helpers.

    Example::

        with Screen() as screen:
            screen.follow(1, helper.stdout)
            Runner(suite, store, root, say=screen.say, progress=screen.progress(0))
    """

    def __init__(self, console: Console | None = None):
        self.console = console or Console()
        self._now: dict[int, str] = {}
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._live = Live(console=self.console, auto_refresh=False, transient=True)

    def __enter__(self) -> Screen:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for thread in self._threads:
            thread.join(timeout=5.0)
        with self._lock:
            self._live.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        with self._lock:
            self.console.print(Text(text), soft_wrap=True)

    def progress(self, job: int) -> Callable[[str], None]:
        """Takes the line of progress of a process, in place of its last one."""

        def show(text: str) -> None:
            with self._lock:
                self._now[job] = text
                lines = [Text(line, no_wrap=True, overflow="ellipsis") for _, line in sorted(self._now.items())]
                self._live.update(Group(*lines), refresh=True)

        return show

    def follow(self, job: int, stream: IO[str]) -> None:
        """Show what a helper says, until it ends."""

        def read() -> None:
            show = self.progress(job)
            for line in stream:
                text = line.rstrip("\n")
                if text.startswith(PROGRESS):
                    show(text.removeprefix(PROGRESS))
                else:
                    self.say(text)
            show("")

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        self._threads.append(thread)
