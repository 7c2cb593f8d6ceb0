"""Pictures as single files in a folder, or as members of tars that stay packed."""

from __future__ import annotations

import contextlib
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tasks.data.errors import DataError, Missing, Wrong, shown
from tasks.data.pictures import SUFFIXES

PASSED_OVER = {"__MACOSX", "Thumbs.db", "desktop.ini"}  # what systems leave behind, besides names with a dot


@dataclass(frozen=True)
class Files:
    """`names[i]` under a folder. Names alone are kept: ImageNet-21k has fourteen million."""

    folder: Path
    names: Sequence[str]
    single: ClassVar[bool] = True

    def __len__(self) -> int:
        return len(self.names)

    def read(self, i: int) -> bytes:
        return read_bytes(self.folder / self.names[i])

    def where(self, i: int) -> str:
        return str(self.folder / self.names[i])

    def files(self) -> Sequence[str]:
        return [os.path.join(self.folder, name) for name in self.names]

    def open(self) -> None:
        pass


@dataclass(frozen=True)
class Members:
    """Members of tars, read at remembered offsets, so that processes can share the reader."""

    places: Sequence[tuple[Path, int, int]]  # tar, offset, bytes
    names: Sequence[str]
    single: ClassVar[bool] = False

    def __len__(self) -> int:
        return len(self.places)

    def read(self, i: int) -> bytes:
        path, offset, size = self.places[i]
        try:
            with path.open("rb") as file:
                file.seek(offset)
                content = file.read(size)
        except OSError as error:
            raise Wrong(f"cannot be read: {error.strerror or error}", path=path) from error
        if len(content) < size:
            raise Wrong("ends in the middle of a picture: an interrupted copy", path=path, place=self.names[i])
        return content

    def where(self, i: int) -> str:
        return f"{self.places[i][0]}: {self.names[i]}"

    def files(self) -> Sequence[str]:
        return sorted({str(path) for path, _, _ in self.places})

    def open(self) -> None:
        pass


def read_bytes(path: Path) -> bytes:
    """Raises: Missing or Wrong naming the file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise Missing("no such file", path=path) from None
    except OSError as error:
        raise Wrong(f"cannot be read: {error.strerror or error}", path=path) from error


def read_text(path: Path) -> str:
    """A text in UTF-8, with or without a byte-order mark.

    Raises: Missing for no file. Wrong for one that cannot be read, or is no UTF-8.
    """
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Wrong(f"is not UTF-8 text (byte {error.object[error.start]:#04x})", path=path) from None


def tar_members(paths: Sequence[Path]) -> dict[str, tuple[Path, int, int]]:
    """Where each file of some tars lies: name -> (tar, offset, bytes).

    Raises: Wrong for a file that is no tar, or ends early.

    Example: `tar_members(sorted(folder.glob("*.tar")))["images/1.jpg"]`
    """
    found = {}
    for path in paths:
        try:
            with tarfile.open(path) as tar:
                found.update({m.name.removeprefix("./"): (path, m.offset_data, m.size) for m in tar if m.isfile()})
        except (tarfile.TarError, OSError, EOFError) as error:
            raise Wrong(f"cannot be read as a tar: {error}", path=path) from error
    return found


def pictures_under(folder: Path) -> Iterator[tuple[str, bool]]:
    """`(path relative to folder, has it a suffix of a picture?)` of every file below, sorted; links are followed.

    Names that start with a dot, and what systems leave behind, are passed over without a word.
    """
    real = Path(os.path.realpath(folder))
    yield from _walk(folder, "", frozenset(map(str, (real, *real.parents))))


def _walk(folder: Path, prefix: str, above: frozenset[str]) -> Iterator[tuple[str, bool]]:
    try:
        entries = sorted(os.scandir(folder), key=lambda e: e.name)
    except OSError as error:
        raise Wrong(f"cannot be listed: {error.strerror or error}", path=folder) from error
    for entry in entries:
        if entry.name.startswith(".") or entry.name in PASSED_OVER:
            continue
        check_spelling(entry.name, folder)
        if entry.is_dir():
            real = os.path.realpath(entry.path)
            if real not in above:  # a link to a folder above would never end
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", above | {real})
        elif entry.is_file() or entry.is_symlink():  # a pipe or socket would be waited for; a torn link is named
            yield prefix + entry.name, os.path.splitext(entry.name)[1].lower() in SUFFIXES


def check_spelling(name: str, folder: Path) -> None:
    """Raises: Wrong for a name on disk that is no text: results and caches could not hold it."""
    if not name.isascii() and any("\ud800" <= c <= "\udfff" for c in name):
        raise Wrong(f"has a name that is not UTF-8: {shown(name)}", path=folder, advice="rename it")


def passed_over(others: Sequence[str]) -> str:
    """A note on files that no decoder takes, by suffix, most first; "" for none.

    Example: `passed_over(["a.txt", "b.heic"]) == "2 files passed over: 1 .heic, 1 .txt"`
    """
    if not others:
        return ""
    counts: dict[str, int] = {}
    for name in others:
        suffix = os.path.splitext(name)[1].lower() or "without suffix"
        counts[suffix] = counts.get(suffix, 0) + 1
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    files = "file" if len(others) == 1 else "files"
    return f"{len(others):,} {files} passed over: {', '.join(f'{n:,} {s}' for s, n in most[:5])}"


def pictures_in(
    folder: Path, names: Sequence[str], tars: Sequence[Path] = (), advice: str = "", path: Path | None = None
) -> Files | Members:
    """The pictures that labels name, out of a folder, or out of tars by their path there or their file name.

    Args: path: the file of labels, for the error.
    Raises: Missing saying how many are not there, and the first.

    Example: `pictures_in(Path("coco/val2017"), ["000000000139.jpg"])`
    """
    if tars:
        members = tar_members(tars)
        short = {Path(name).name: place for name, place in members.items()}
        found = [members.get(name) or short.get(Path(name).name) for name in names]
        absent = [name for name, place in zip(names, found, strict=True) if place is None]
        if not absent:
            return Members([place for place in found if place is not None], names)
        where = tars[0].parent
    else:
        there = listing(folder, names)
        absent = [name for name in names if name not in there]
        if not absent:
            return Files(folder, names)
        where = folder
    raise absent_pictures(absent, len(names), where, advice, path)


def absent_pictures(
    absent: Sequence[str], of: int, where: Path, advice: str = "", path: Path | None = None
) -> DataError:
    """The error for pictures that labels name and no one has."""
    named = f" that {path.name} names" if path is not None else ""
    advice = other_case(where, absent[0]) or advice
    return Missing(f"{len(absent):,} of {of:,} pictures{named} are missing, the first is {absent[0]}", path=where,
                   advice=advice)  # fmt: skip


def listing(folder: Path, names: Sequence[str]) -> set[str]:
    """Those of `names` that are under a folder, by one listing of each of its folders: a look-up each is slow."""
    there: set[str] = set()
    names = [name for name in names if not os.path.isabs(name)]  # labels name pictures of their set, no other files
    for parent in {os.path.dirname(name) for name in names}:
        try:
            with os.scandir(folder / parent) as entries:
                prefix = f"{parent}/" if parent else ""
                there.update(prefix + e.name for e in entries)
        except OSError:
            continue
    return {name for name in names if name in there}


def other_case(folder: Path, name: str) -> str:
    """A word on a file that is there under the same name in other letters; "" where none is.

    Example: `other_case(folder, "A.JPG") == "there is a.jpg: capitals count"`
    """
    parent = folder / os.path.dirname(name)
    wanted = os.path.basename(name).casefold()
    with contextlib.suppress(OSError):
        for entry in os.scandir(parent):
            if entry.name.casefold() == wanted and entry.name != os.path.basename(name):
                return f"there is {entry.name}: capitals count"
    return ""
