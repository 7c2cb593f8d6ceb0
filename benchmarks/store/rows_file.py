"""`rows.jsonl`: lines that are whole or absent, read once, with an index that grows with the file."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.store.files import cannot_write, write_all
from benchmarks.store.row import Row, plain
from benchmarks.store.upgrades import read_row

BLOCK = 1 << 22  # bytes read at a time


class Entry(NamedTuple):
    """What the index keeps of a row: where its line is, and what plans ask for."""

    offset: int
    length: int
    row_key: str
    cell_key: str
    view_key: str
    split: str
    ok: bool
    skipped: bool
    speed: int | None  # multiply-adds a second of its evaluation


class RowsFile:
    """The file of a folder's rows. Each of its methods reads what other processes have appended meanwhile.

    Example::

        file = RowsFile(Path("results/runs/mini/rows.jsonl"))
        file.of_cell("5d41402abc4b2a76")
    """

    def __init__(self, path: Path, report: Callable[[str], None]):
        self.path, self._report = path, report
        self._forget()

    def _forget(self) -> None:
        self._identity: tuple[int, int] | None = None
        self._end = self._lines = 0
        self._entries: list[Entry] = []
        self._by_cell: dict[str, list[Entry]] = {}
        self._done: dict[str, Entry] = {}

    def append(self, rows: Sequence[Row], locked: Any) -> None:
        """Write rows in one piece, under the lock. A torn tail of a killed writer is cut off.

        Raises: StoreError where they cannot be written, ValueError for a value that is not finite; then none is.
        """
        content = "".join(_line(row) for row in rows).encode()
        with locked:
            try:
                with open(self.path, "ab+", buffering=0) as file:
                    end = _whole_length(file)
                    if end < file.seek(0, os.SEEK_END):
                        file.truncate(end)
                    try:
                        write_all(file.fileno(), content)
                    except OSError:
                        os.ftruncate(file.fileno(), end)  # a full disk takes a part of them
                        raise
            except OSError as error:
                raise cannot_write(self.path, error) from error

    def read(self) -> Iterator[Row]:
        """All whole rows, oldest first; a line that is no row, or has no end, is reported and passed over."""
        for _, _, row in self._scan(0, 0, whole_file=True):
            if row is not None:
                yield row

    def entries(self) -> Sequence[Entry]:
        """The index of all rows, oldest first."""
        self._refresh()
        return self._entries

    def of_cell(self, cell_key: str) -> Sequence[Entry]:
        """The index of one cell's rows, oldest first."""
        self._refresh()
        return self._by_cell.get(cell_key, ())

    def done(self) -> dict[str, Entry]:
        """The newest successful row of each row key. Not to be changed by the caller."""
        self._refresh()
        return self._done

    def load(self, entries: Iterable[Entry]) -> list[Row]:
        """The rows of some entries, by one short read each."""
        rows: list[Row] = []
        if not (wanted := list(entries)):
            return rows
        with open(self.path, "rb") as file:
            for entry in wanted:
                file.seek(entry.offset)
                rows.append(read_row(_parsed(file.read(entry.length))))
        return rows

    def _refresh(self) -> None:
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            self._forget()
            return
        if self._identity != (status.st_dev, status.st_ino) or status.st_size < self._end:
            self._forget()  # another file now, or one that was cut
            self._identity = (status.st_dev, status.st_ino)
        if status.st_size == self._end:
            return
        for offset, length, row in self._scan(self._end, self._lines):
            self._end, self._lines = offset + length, self._lines + 1
            if row is not None:
                self._add(offset, length, row)

    def _add(self, offset: int, length: int, row: Row) -> None:
        entry = Entry(
            offset, length, row.row_key, sys.intern(row.cell_key or ""), sys.intern(row.view_key or ""),
            sys.intern(row.split or ""), row.status == "ok", bool(row.skipped), row.cost.get("macs_per_second"),
        )  # fmt: skip
        self._entries.append(entry)
        self._by_cell.setdefault(entry.cell_key, []).append(entry)
        if entry.ok:
            self._done[entry.row_key] = entry

    def _scan(self, start: int, lines: int, whole_file: bool = False) -> Iterator[tuple[int, int, Row | None]]:
        """Offset, length and row (None: not a row) of every whole line from a place on.

        A last line without its end was never recorded; an index waits for it, who reads the whole file is told.
        """
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            file.seek(start)
            rest = b""
            while block := file.read(BLOCK):
                *whole, rest = (rest + block).split(b"\n")
                for line in whole:
                    lines += 1
                    yield start, len(line) + 1, self._parsed(line, lines)
                    start += len(line) + 1
        if rest and whole_file:
            self._report(f"{self.path}:{lines + 1}: has no end, passed over: cut off, or still being written")

    def _parsed(self, line: bytes, number: int) -> Row | None:
        try:
            return read_row(_parsed(line))
        except (ValueError, RecursionError) as error:
            why = "not JSON" if isinstance(error, json.JSONDecodeError | UnicodeDecodeError) else error
            self._report(f"{self.path}:{number}: not a row, passed over: {why}")
            return None


def _line(row: Row) -> str:
    try:
        return json.dumps(row.to_json(), default=plain, allow_nan=False) + "\n"
    except ValueError as error:
        place = _not_finite(row.to_json())
        if place is None:
            raise
        raise ValueError(f"row of {row.label or row.task}: {place}: every number is finite, or a failure") from error


def _not_finite(value: Any, place: str = "") -> str | None:
    """`cost.macs is nan`, the first value that JSON does not have."""
    if isinstance(value, dict):
        parts: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    elif not isinstance(value, str | int | bool | float | None) and (other := plain(value)) is not value:
        return _not_finite(other, place)
    else:
        return f"{place} is {value}" if isinstance(value, float) and not math.isfinite(value) else None
    found = (_not_finite(v, f"{place}.{k}" if place else str(k)) for k, v in parts)
    return next((f for f in found if f), None)


def _parsed(line: bytes) -> Any:
    """The JSON of a line. Half a pair of UTF-16, as a command with a file name that is not UTF-8 leaves, becomes `?`:
    no page could be written with it."""
    value = json.loads(line, parse_constant=_refuse)
    return _encodable(value) if b"\\ud" in line.lower() else value


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_encodable(part) for part in value]
    if isinstance(value, dict):
        return {_encodable(key): _encodable(part) for key, part in value.items()}
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a number of JSON")


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
