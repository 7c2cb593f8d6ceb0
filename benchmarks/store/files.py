"""Files that are whole or absent, whatever kills their writer, and locks that the system frees when it dies."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PROBE = 1 << 18  # bytes; rows of a cell with their traceback or curves are smaller


class StoreError(ValueError):
    """Results that cannot be written or read; one line with the file and what to do."""


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Call `write(temporary path)`, then rename: readers see the old file or the whole new one.

    Raises: StoreError where the disk or a quota is full, or the file may not be written.

    Example: `write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))`
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        os.replace(partial, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    except RuntimeError as error:
        full = _room(partial, error)
        if full is None:
            raise
        raise cannot_write(path, full) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _room(partial: Path, error: RuntimeError) -> OSError | None:
    """Why torch, which says only that it stands at another position than it expected, could not write; None: no room is
    wanting."""
    cause = error.__cause__ or error.__context__
    if isinstance(cause, OSError):
        return cause
    with contextlib.suppress(OSError):
        if shutil.disk_usage(partial.parent).free < PROBE:
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    try:  # a quota or a limit on the size of files shows only when more is written
        with open(partial, "ab", buffering=0) as file:
            write_all(file.fileno(), bytes(PROBE))
    except OSError as found:
        return found
    return None


def cannot_write(path: Path, error: OSError) -> StoreError:
    """The one line of a file that cannot be written, with what mends it."""
    return StoreError(f"{path} cannot be written: {error.strerror or error}; {how_to_mend(error)}")


def how_to_mend(error: OSError) -> str:
    """What a person can do about a write that failed."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space (or inodes, see `df -i`), then give the same command again"
    if error.errno == errno.EFBIG:
        return "raise the limit on the size of files (ulimit -f), then give the same command again"
    return "choose another --out"


def write_all(descriptor: int, content: bytes) -> None:
    """Write to the last byte, and to the disk itself: some systems say only then that it is full."""
    while content:
        content = content[os.write(descriptor, content) :]
    os.fsync(descriptor)


class Locks:
    """Named locks of a folder.

    Example: `with Locks(Path("results/runs/mini/locks")).claim("cell") as ours: ...`
    """

    def __init__(self, folder: Path):
        self.folder = folder

    @contextlib.contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Hold a lock, waiting for it. The system frees it when the process dies, however it dies."""
        with self._file(name) as file:
            self._flock(file, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Try to hold a lock: True where it is ours until the block ends, False where another process has it."""
        with self._file(name) as file:
            try:
                self._flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def _flock(self, file: Any, how: int) -> None:
        try:
            fcntl.flock(file, how)
        except BlockingIOError:
            raise
        except OSError as error:  # Lustre without the mount option, some network disks
            why = f"the file system of {self.folder.parent} has no flock ({error.strerror})"
            raise StoreError(f"{why}; choose another --out, or have it mounted with flock") from error

    def _file(self, name: str) -> Any:
        path = self.folder / f"{name}.lock"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return open(path, "wb")
        except OSError as error:  # no inode is left, or the folder is another user's
            raise cannot_write(path, error) from error
