"""A folder of results: rows, what is kept of each sample, and locks between runners."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.store.files import PROBE, Locks, StoreError, how_to_mend, write_all
from benchmarks.store.row import Row
from benchmarks.store.rows_file import Entry, RowsFile
from benchmarks.store.samples import Samples, read_samples, write_samples
from benchmarks.store.upgrades import rows_of_csv


class Store:
    """A folder of results: `rows.jsonl`, `samples/`, `checkpoints/`, `locks/`. Whatever it reads runs nothing.

    `faults`: lines about what in the folder could not be read; each is also a warning, once. `trust`: may tasks and
    backbones that its rows name as `module:callable` be imported by who opens them?

    Example::

        store = Store("results/runs/mini")
        store.append([row])
        [row.metrics for row in store.rows()]
    """

    def __init__(self, folder: str | Path, trust: bool = False):
        self.folder, self.trust = Path(folder), trust
        self.path = self.folder / "rows.jsonl"
        self.faults: list[str] = []
        self._locks = Locks(self.folder / "locks")
        self._file = RowsFile(self.path, self.report_fault)

    def report_fault(self, line: str) -> None:
        """Keep and warn of a file or line that cannot be read, once."""
        if line not in self.faults:
            self.faults.append(line)
            warnings.warn(line, stacklevel=2)

    def append(self, rows: Sequence[Row | Mapping[str, Any]]) -> None:
        """Write rows in one piece; several processes may do so at once. This is the one way in: each is checked.

        Raises: StoreError where they cannot be written; ValueError for a row with a value that is wrong or not finite.
        Then none of them is written.
        """
        whole = [row if isinstance(row, Row) else Row.from_json(row) for row in rows]
        if whole:
            self._file.append(whole, self.locked("rows"))

    def rows(self) -> list[Row]:
        """All rows, oldest first, of a folder that has only the table of a report (`rows.csv`) those of that.

        What is no row is a fault, and passed over.
        """
        table = self.folder / "rows.csv"
        if not self.path.exists() and table.is_file():
            return rows_of_csv(table)
        return list(self._file.read())

    def done(self) -> Mapping[str, Entry]:
        """Index of the newest successful row of each row key; failures never count."""
        return self._file.done()

    def entries(self, cell_key: str | None = None) -> Sequence[Entry]:
        """Index of all rows, or of those of a cell, oldest first. Only what is new in the file is read for it."""
        return self._file.entries() if cell_key is None else self._file.of_cell(cell_key)

    def row(self, entry: Entry) -> Row:
        """The row of an entry of the index."""
        return self._file.load([entry])[0]

    def save_samples(self, row_key: str, samples: Mapping[str, Any]) -> str:
        """Keep per-sample arrays of a row; returns the path relative to the folder.

        Raises: StoreError where they cannot be written.
        """
        write_samples(self.folder / "samples" / f"{row_key}.npz", samples)
        return f"samples/{row_key}.npz"

    def samples(self, row: Row | Mapping[str, Any]) -> Samples | None:
        """Per-sample arrays of a row; None where none were kept, or where the file cannot be read, which is a fault."""
        if not row.get("samples"):
            return None
        # only the name: what a row says can never lead out of the folder
        path = self.folder / "samples" / Path(str(row["samples"])).name
        try:
            return read_samples(path)
        except FileNotFoundError:
            self.report_fault(f"{path.parent}: per-sample files of some rows are missing")
            return None
        except StoreError as error:
            self.report_fault(str(error))
            return None

    def check_writable(self) -> None:
        """Raises: StoreError where a row could not be written: better known before a cell is trained than after."""
        path = self.folder / "locks" / f"probe.{os.getpid()}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab"), open(path, "wb", buffering=0) as file:
                write_all(file.fileno(), bytes(PROBE))
        except OSError as error:
            why = f"{error.strerror or error}; {how_to_mend(error)}"
            raise StoreError(f"results cannot be written to {self.folder}: {why}") from error
        finally:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def locked(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Hold a lock, waiting for it. The system frees it when the process dies, however it dies."""
        return self._locks.hold(name)

    @contextlib.contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Try to hold a lock: True where it is ours until the block ends, False where another runner has it."""
        with self._locks.claim(name) as ours:
            yield ours
