"""JSON files read strictly: whole, or as a stream of chunks for label files of gigabytes."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from tasks.data.errors import Missing, Wrong, nearest, shown

BLOCK = 1 << 20  # characters read at a time
CHUNK = 16_384  # list elements handed over at a time
_SPACE = re.compile(r"[ \t\r\n]*")


def read_json(path: str | Path) -> Any:
    """What a JSON file (or `.json.gz`) holds; a byte-order mark is passed over, NaN and Infinity are numbers.

    Raises: Missing where there is no such file, naming the nearest. Wrong where it is torn, no text, nested without
    end, holds a key twice, or anything after its end.

    Example: `read_json("data/classification/cars98_meta.json")["class_names"]`
    """
    with _opened(path) as file:
        try:
            return json.loads(file.read(), object_pairs_hook=_unique)
        except json.JSONDecodeError as error:
            raise Wrong(f"is not JSON: {error}", path=path) from None
        except _Twice as error:
            raise Wrong(f"has the key {shown(str(error))} twice in one object", path=path) from None
        except (ValueError, RecursionError, EOFError, OSError) as error:
            raise _unreadable(path, error) from None


def stream_json(path: str | Path, keep: Callable[[Any], Any] | None = None) -> Iterator[tuple[str, int, list[Any]]]:
    """The lists of a JSON file in chunks, as `(key, index of the first element, elements)`, in memory of one chunk.

    A file that is one list has the key "". A member that is no list comes as `(key, -1, [value])`; an empty list as
    `(key, 0, [])`, so that a caller sees that it is there.

    Args: keep: what is kept of each element, called as it is read (polygons are most of a label file).
    Raises: as `read_json`; Wrong too for a file that is neither an object nor a list, and for commas that are missing
        or too many. What comes before the fault has been handed over by then.

    Example: `sum(len(chunk) for key, _, chunk in stream_json("lvis_v1_val.json") if key == "annotations")`
    """
    with _opened(path) as file:
        try:
            yield from _Scanner(file, path, keep).members()
        except json.JSONDecodeError as error:
            raise Wrong(f"is not JSON: {error}", path=path) from None
        except _Twice as error:
            raise Wrong(f"has the key {shown(str(error))} twice in one object", path=path) from None
        except Wrong:
            raise
        except (ValueError, RecursionError, EOFError, OSError) as error:
            raise _unreadable(path, error) from None


class _Twice(Exception):
    """A key that an object has twice: one of the two values would be lost."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Twice(next(key for i, key in enumerate(keys) if key in keys[:i]))
    return found


def _opened(path: str | Path) -> IO[str]:
    path = Path(path)
    try:
        if path.suffix == ".gz" or _is_gzip(path):
            return gzip.open(path, "rt", encoding="utf-8-sig")
        return path.open(encoding="utf-8-sig")
    except FileNotFoundError:
        names = [p.name for p in path.parent.glob("*.json*")] if path.parent.is_dir() else []
        near = nearest(path.name, names)
        raise Missing("no such file", path=path, advice=f"nearest: {', '.join(near)}" if near else "") from None
    except OSError as error:
        raise Wrong(f"cannot be read: {error.strerror or error}", path=path) from None


def _is_gzip(path: Path) -> bool:
    """Whatever its name: downloads lose their second suffix. A pipe is not looked into, it can be read once."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _unreadable(path: str | Path, error: Exception) -> Wrong:
    if isinstance(error, UnicodeDecodeError):
        return Wrong(f"is not JSON: not UTF-8 text (byte {error.object[error.start]:#04x})", path=path)
    if isinstance(error, RecursionError):
        return Wrong("is not JSON that can be read: nested too deeply", path=path)
    return Wrong(f"cannot be read as JSON: {error}", path=path)


class _Scanner:
    """Walks over the top level of a document by hand and leaves the elements to the decoder in C."""

    def __init__(self, file: IO[str], path: str | Path, keep: Callable[[Any], Any] | None):
        self.file, self.path, self.keep = file, path, keep
        self.text, self.at, self.passed = "", 0, 0  # what is read and not yet used, and the characters before it
        self.ended = False
        self.decode = json.JSONDecoder(object_pairs_hook=_unique).raw_decode

    def members(self) -> Iterator[tuple[str, int, list[Any]]]:
        opening = self._next()
        if opening == "[":
            yield from self._list("")
        elif opening == "{":
            yield from self._object()
        else:
            self._fault("expected an object or a list")
        if more := self._next():
            lines = "; of JSON lines make one object or list" if more in "{[" else ""
            self._fault(f"something follows after its end{lines}")

    def _object(self) -> Iterator[tuple[str, int, list[Any]]]:
        self.at += 1
        seen: set[str] = set()
        if self._next() == "}":
            self.at += 1
            return
        while True:
            if self._next() != '"':
                self._fault("expected a name in double quotes")
            key = self._value()
            if key in seen:
                raise _Twice(key)
            seen.add(key)
            if self._next() != ":":
                self._fault("expected ':'")
            self.at += 1
            if self._next() == "[":
                yield from self._list(key)
            else:
                yield key, -1, [self._value()]
            if not self._more("}"):
                return

    def _list(self, key: str) -> Iterator[tuple[str, int, list[Any]]]:
        self.at += 1
        start, chunk = 0, []
        if self._next() == "]":
            self.at += 1
            yield key, 0, []
            return
        while True:
            value = self._value()
            chunk.append(value if self.keep is None else self.keep(value))
            more = self._more("]")
            if not more or len(chunk) == CHUNK:
                yield key, start, chunk
                start, chunk = start + len(chunk), []
            if not more:
                return

    def _more(self, closing: str) -> bool:
        """Past a comma (True) or the closing bracket (False)."""
        sign = self._next()
        if sign not in (",", closing) or not sign:
            self._fault(f"expected ',' or '{closing}'")
        self.at += 1
        if sign == "," and self._next() in (",", closing):
            self._fault("a comma too many")
        return sign == ","

    def _next(self) -> str:
        """The next character that is no space; "" at the end of the file."""
        while True:
            self.at = _SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]  # it matches nothing too
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._fill():
                return ""

    def _value(self) -> Any:
        """One whole value. A number or word at the end of what is read may go on in the next block."""
        size = BLOCK
        while True:
            try:
                value, end = self.decode(self.text, self.at)
                if end < len(self.text) or not self._fill(size):
                    self.at = end
                    return value
            except json.JSONDecodeError as error:
                torn = error.pos > len(self.text) - 16 or "Unterminated" in error.msg
                if not torn or not self._fill(size):
                    self._fault(error.msg, error.pos)
            size *= 2  # an element of many blocks is not decoded once for each of them

    def _fill(self, size: int = BLOCK) -> bool:
        """Read on; False at the end of the file."""
        if self.ended:
            return False
        more = self.file.read(size)
        self.ended = not more
        self.passed += self.at
        self.text, self.at = self.text[self.at :] + more, 0
        return not self.ended

    def _fault(self, why: str, at: int | None = None) -> None:
        place = self.passed + (self.at if at is None else at)
        raise Wrong(f"is not JSON: {why} at character {place}", path=self.path)
