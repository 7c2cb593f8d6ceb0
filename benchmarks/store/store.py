"""Results on disk: rows that are whole or absent, per-sample files, claims between runners."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROW_FORMAT = 1  # raise it when the meaning of a key changes; `_upgrade` reads what is older
PROBE = 1 << 18  # bytes; rows of a cell with their traceback or curves are smaller
Row = dict[str, Any]


def key_of(parts: Mapping[str, Any]) -> str:
    """16 hex digits that depend on the content of `parts`, not on the order of its keys.

    Example: `key_of({"a": 1, "b": [2]}) == key_of({"b": (2,), "a": 1})`
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "item"):
        return value.item()
    return str(value)


def write_atomically(path: Path, write: Any) -> None:
    """Call `write(temporary path)`, then rename: readers see the old file or the whole new one.

    Raises: StoreError where the disk is full or may not be written to.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        os.replace(partial, path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}; {_mend(error)}") from error
    except RuntimeError as error:
        if shutil.disk_usage(path.parent).free >= PROBE:
            raise
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # torch calls it an unexpected position
        raise StoreError(f"{path} cannot be written: {full.strerror}; {_mend(full)}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


class StoreError(ValueError):
    """Results that cannot be written; one line with the folder and what to do."""


class Store:
    """A folder of results: `rows.jsonl`, `samples/`, `checkpoints/`, `errors/`, `locks/`.

    Example::

        store = Store("results/runs/mini")
        store.append([{"row_key": "ab", "status": "ok", "metrics": {"top1": 0.5}}])
        store.done()["ab"]["metrics"]
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.path = self.folder / "rows.jsonl"

    def append(self, rows: Sequence[Row]) -> None:
        """Write rows in one piece; several processes may do so at once. A torn tail of a killed writer is cut off.

        Raises: OSError where they cannot be written; then none of them is.
        """
        if not rows:
            return
        whole = ({"row_format": ROW_FORMAT, **r} for r in rows)
        text = "".join(json.dumps(r, default=_plain, allow_nan=False) + "\n" for r in whole)
        with self.locked("rows"), open(self.path, "ab+", buffering=0) as file:
            end = _whole_length(file)
            if end < file.seek(0, os.SEEK_END):
                file.truncate(end)
            try:
                _write_all(file.fileno(), text.encode())
            except OSError:
                os.ftruncate(file.fileno(), end)  # a full disk takes a part of them
                raise

    def check_writable(self) -> None:
        """Raises: StoreError where a row could not be written: better known before a cell is trained than after."""
        path = self.folder / "locks" / f"probe.{os.getpid()}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab"), open(path, "wb", buffering=0) as file:
                _write_all(file.fileno(), bytes(PROBE))
        except OSError as error:
            raise StoreError(f"results cannot be written to {self.folder}: {error.strerror}; {_mend(error)}") from error
        finally:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def rows(self) -> list[Row]:
        """All whole rows, oldest first. A last line without its end was never recorded; a broken one is a warning."""
        if not self.path.exists():
            return []
        lines = self.path.read_bytes().split(b"\n")[:-1]
        found = []
        for number, line in enumerate(lines, 1):
            try:
                found.append(_upgrade(json.loads(line)))
            except (ValueError, AttributeError):
                warnings.warn(f"{self.path}:{number} is not a row and is passed over", stacklevel=2)
        return found

    def done(self) -> dict[str, Row]:
        """The newest successful row of each row key; failures never count."""
        return {r["row_key"]: r for r in self.rows() if r["status"] == "ok"}

    def save_samples(self, row_key: str, samples: Mapping[str, Any]) -> str:
        """Keep per-sample arrays; returns the path relative to the folder."""
        path = self.folder / "samples" / f"{row_key}.npz"
        arrays = {k: np.asarray(v) for k, v in samples.items()}

        def write(partial: Path) -> None:
            with open(partial, "wb") as file:
                np.savez_compressed(file, **arrays)

        write_atomically(path, write)
        return str(path.relative_to(self.folder))

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold a lock, waiting for it. The system frees it when the process dies, however it dies."""
        with self._lock_file(name) as file:
            self._flock(file, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Try to hold a lock: True where it is ours until the block ends, False where another runner has it."""
        with self._lock_file(name) as file:
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
            why = f"the file system of {self.folder} has no flock ({error.strerror})"
            raise StoreError(f"{why}; choose another --out, or have it mounted with flock") from error

    def _lock_file(self, name: str) -> Any:
        folder = self.folder / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return open(folder / f"{name}.lock", "w")


def _write_all(descriptor: int, content: bytes) -> None:
    """Write to the last byte, and to the disk itself: some systems say only then that it is full."""
    while content:
        content = content[os.write(descriptor, content) :]
    os.fsync(descriptor)


def _mend(error: OSError) -> str:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "free some space and give the same command" if full else "choose another --out"


def _whole_length(file: Any) -> int:
    """Bytes up to and with the last line end."""
    size = file.seek(0, os.SEEK_END)
    step = 1 << 16
    for start in range(max(size - step, 0), -step, -step):
        file.seek(max(start, 0))
        at = file.read(step).rfind(b"\n")
        if at >= 0:
            return max(start, 0) + at + 1
    return 0


def _upgrade(row: Row) -> Row:
    """Rows of older or foreign writers get the keys that readers rely on."""
    if not isinstance(row, dict):
        raise ValueError("not an object")
    row.setdefault("row_format", 0)
    row.setdefault("status", "ok" if row.get("metrics") else "failed")
    row.setdefault("metrics", {})
    row.setdefault("row_key", row.get("key", ""))
    for name in ("suite", "task", "protocol", "backbone", "train_grid", "eval_grid", "seed", "split"):
        row.setdefault(name, None)
    return row


@functools.cache
def environment() -> dict[str, Any]:
    """Versions, code revision and machine, once per process."""
    from importlib.metadata import PackageNotFoundError, version

    import torch

    versions = {"python": platform.python_version()}
    for package in ("torch", "torchvision", "timm", "accelerate", "faiss-cpu", "numpy", "pillow"):
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {
        "versions": versions, "revision": _revision(), "device_name": device, "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(), "system": platform.platform(), "command": " ".join(sys.argv),
    }  # fmt: skip


def _revision() -> str | None:
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10).stdout.strip()

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        return f"{head}{'+changes' if git('status', '--porcelain', '--untracked-files=no') else ''}" if head else None
    except (OSError, subprocess.TimeoutExpired):
        return None
