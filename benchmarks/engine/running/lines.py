"""The lines of a run: what stays, and what the next one replaces on a terminal."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

PROGRESS = "\x1f"  # begins a line of progress between a process and the one that shows it
HELPER = "FLEXIVIT_HELPER"  # set: another process shows the lines of this one


def write_line(text: str) -> None:
    """Print at once; a log on a disk that is full ends no run."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


class Lines:
    """What a run says: of all its cells, of one, and how far that one is.

    Args:
        say: takes a line that stays.
        progress: takes a line that the next one replaces; None: such lines stay too.
        several: other runners speak beside this one, so that each line of a cell bears its name.
        terminal: a person is watching, so that progress comes every second.

    Example::

        lines = Lines(print)
        lines.begin("[1/12]", "classification/scenes flexivit_nano trained at 8 seed 0", "5 of 5 rows to do")
        lines.cell("test top1 at grid 8: 63.3")
        lines.progress("step 10/100 loss 1.9, 3 min left")
    """

    def __init__(
        self,
        say: Callable[[str], None],
        progress: Callable[[str], None] | None = None,
        several: bool = False,
        terminal: bool = False,
    ):
        self.say, self._progress, self.several = say, progress or say, several
        self.every = 1.0 if terminal else 10.0  # seconds between lines of progress
        self._label = ""

    def begin(self, place: str, label: str, text: str) -> None:
        """A cell's first line, or its only one."""
        self._label = label
        self.say(f"{place} {label}: {text}")

    def cell(self, text: str) -> None:
        """A line about the cell that has begun."""
        self.say(f"  {self._label}: {text}" if self.several else f"  {text}")

    def progress(self, text: str) -> None:
        """How far the cell is."""
        self._progress(f"  {self._label}: {text}")


def to_parent(text: str) -> None:
    """Progress of a helper, for the process that shows it."""
    write_line(PROGRESS + text)


def is_helper() -> bool:
    """Whether another process shows the lines of this one, and speaks for it at the end."""
    return os.environ.get(HELPER) == "1"
