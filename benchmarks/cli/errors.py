"""The one boundary between errors and people: what they can mend is one line on standard error, exit status 2."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TextIO

TRACEBACK = "FLEXIVIT_TRACEBACK"  # set: every error shows its traceback
OURS = tuple(str(Path(__file__).parents[2] / name) + os.sep for name in ("backbones", "tasks", "benchmarks"))


def run_verb(app: Callable[..., Any], traced: bool = False) -> int:
    """Run the command line; returns the exit status: that of the verb, 2 for what a user can mend, 1 for a fault of
    this software (`traced`: with its traceback), 130 after Ctrl-C, 141 where the reader of the output has gone.

    Example: `sys.exit(run_verb(app))`
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # not a text file, in a notebook or a test
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    warnings.formatwarning = _warning  # type: ignore[assignment]
    try:
        status = int(app(standalone_mode=False) or 0)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        return _closed(sys.stdout)
    except KeyboardInterrupt:
        return _say("", 130)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else _say(str(stop.code), 1) if stop.code else 0
    except BaseException as error:
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            return _closed(sys.stdout)
        line, status = explain(error)
        if os.environ.get(TRACEBACK) or (traced and status != 2):
            traceback.print_exc()
        return _say(line, status)


def run_script(main: Callable[[], int | None]) -> NoReturn:
    """Run a script of this software beside the command line, and leave with the status that a verb has. Whoever
    measures sees the traceback of a fault as well.

    Example: `run_script(main)` below `if __name__ == "__main__":`
    """
    raise SystemExit(run_verb(lambda standalone_mode: main(), traced=True))


def explain(error: BaseException) -> tuple[str, int]:
    """The line for an exception, and the exit status.

    Example: `explain(FileNotFoundError(2, "No such file or directory", "a.npz"))` is
    `("error: a.npz: No such file or directory", 2)`
    """
    from benchmarks.store.failures import text_of  # its room holds the store, which `--help` must not wait for

    if type(error).__name__ == "Abort" and error.__cause__ is not None:
        error = error.__cause__  # typer turns the end of a file into its own "Aborted."
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # a wrong option or argument
        return _usage(error)
    text = " ".join(text_of(error).split()) or "no message"
    if isinstance(error, OSError):
        return f"error: {_of_file(error, text)}", 2
    if isinstance(error, ImportError):
        package = (getattr(error, "name", None) or "").partition(".")[0]
        hint = f"; try: pip install {package}" if package and not package.startswith(("benchmarks", "tasks")) else ""
        return f"error: {text}{hint}", 2
    if isinstance(error, MemoryError):
        return f"error: out of memory ({text}); use a smaller --batch or fewer --workers", 2
    if isinstance(error, UnicodeError):
        return f"error: a file is not UTF-8 text: {text}{_place(error)}", 2
    if isinstance(error, ValueError):
        return f"error: {text}", 2
    told = f"{type(error).__name__}: {text}{_place(error)}"
    return f"error: a fault of this software, please report it: {told}; {TRACEBACK}=1 shows the traceback", 1


def _usage(error: Any) -> tuple[str, int]:
    text = " ".join(str(error.format_message()).split())
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message())
        return "", int(error.exit_code)
    command = f" (see: {context.command_path} --help)" if context is not None else ""
    return f"error: {text}{command}", int(error.exit_code)


def _of_file(error: OSError, text: str) -> str:
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    if error.strerror is None:
        return text
    if not names:
        names = ["standard output"] if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else ["a file"]
    mend = "; free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return f"{' -> '.join(names)}: {error.strerror}{mend}"


def _place(error: BaseException) -> str:
    """` at benchmarks/report/build.py:120`, the deepest line of ours that the error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename.startswith(OURS) and f.filename != __file__] or list(frames)
    if not own:
        return ""
    path = Path(own[-1].filename)
    root = Path(__file__).parents[2]
    shown = path.relative_to(root) if path.is_relative_to(root) else path.name
    return f" at {shown}:{own[-1].lineno}"


def _say(line: str, status: int) -> int:
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        _closed(sys.stdout)
    if line:
        with contextlib.suppress(OSError):  # a log on a disk that is full
            print(line, file=sys.stderr)
    return status


def _closed(stream: TextIO) -> int:
    """Nobody reads any more (`ls | head`), or the disk is full: the interpreter must not say so at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return 141


def _warning(message: Any, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
    """One line; where it is another package's, with its place."""
    text = " ".join(str(message).split())
    return f"warning: {text}\n" if filename.startswith(OURS) else f"{category.__name__}: {text} ({filename}:{lineno})\n"
