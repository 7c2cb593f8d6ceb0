"""What can be the matter with data, typed: `Missing` is to be fetched, `Wrong` is there and must be mended."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tasks.contract import TaskError


class DataError(TaskError):
    """One line: file or folder, place in it, field, what is the matter, what helps.

    Args:
        reason: what is the matter, without any of the following.
        path: file or folder. place: where in it, such as `annotation 17 (id 301)` or `row 12`. field: the name of the
        value there. advice: what to do.

    Example::

        >>> str(Wrong("must be a finite number, not NaN", path="val.json", place="annotation 17", field="area"))
        'val.json: annotation 17: area must be a finite number, not NaN'
    """

    def __init__(
        self, reason: str, *, path: str | Path | None = None, place: str = "", field: str = "", advice: str = ""
    ):
        self.reason, self.place, self.field, self.advice = reason, place, field, advice
        self.path = None if path is None else Path(path)
        where = ([str(path)] if path is not None else []) + ([place] if place else [])
        text = ": ".join([*where, f"{field} {reason}" if field else reason])
        # a lone reason may be what torch makes of a worker's error, whose lines its reader needs
        super().__init__(
            text if text == reason and not advice else as_one_line(f"{text}; {advice}" if advice else text)
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # processes that load data hand their errors over pickled, and keyword arguments would be lost
        return _again, (type(self), self.reason, self.path, self.place, self.field, self.advice)


class Missing(DataError):
    """A file, folder, picture, split or class that must be there is not."""


class Wrong(DataError):
    """Something is there, but torn, of another form, or holds a value that is not allowed."""


def _again(kind: type[DataError], reason: str, path: Path | None, place: str, field: str, advice: str) -> DataError:
    return kind(reason, path=path, place=place, field=field, advice=advice)


def collected(look: Callable[[str], object], splits: Iterable[str]) -> list[DataError]:
    """What is missing or wrong of some splits: the error of each, told once where several splits have the same.

    Example: `collected(labelled_set("cars98", "data").whole, ("train", "test")) == []`
    """
    errors: dict[str, DataError] = {}
    for split in dict.fromkeys(splits):
        try:
            look(split)
        except DataError as error:
            errors.setdefault(str(error), error)
    return list(errors.values())


def nearest(name: object, known: Iterable[str], count: int = 3) -> list[str]:
    """The known names that are most like `name`, best first; none where none is.

    Example: `nearest("cars99", ["cars98", "dtd"]) == ["cars98"]`
    """
    return difflib.get_close_matches(str(name), list(known), count, 0.4)


def as_one_line(text: object, limit: int = 2000) -> str:
    """Text without line breaks and control characters, cut to `limit` characters.

    Example: `as_one_line("a\\nb") == "a b"`
    """
    whole = " ".join(str(text).split())
    shown = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in whole)
    return shown if len(shown) <= limit else f"{shown[:limit]}..."


def shown(value: object, limit: int = 60) -> str:
    """A bad value as it is told in an error: its repr, cut.

    Example: `shown("x" * 100)` ends in `...`
    """
    text = as_one_line(repr(value), limit)
    return text.replace("nan", "NaN") if isinstance(value, float) else text
