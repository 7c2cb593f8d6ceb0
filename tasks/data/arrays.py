"""numpy files read strictly: one whole array of numbers, or a file of named ones; never code of a pickle."""

from __future__ import annotations

import contextlib
import io
import math
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from tasks.data.errors import Missing, Wrong, nearest

KINDS = {"b": "booleans", "U": "texts", "S": "texts", "O": "objects"}


def read_array(path: str | Path) -> np.ndarray:
    """The array of a .npy file: floats or integers, of any shape.

    Raises: Missing where there is no such file, naming the nearest. Wrong where it is no .npy, torn, holds anything
        after its array, or something else than numbers.

    Example: `read_array("images.npy").shape`
    """
    path = Path(path)
    with _opened(path) as file:
        if file.read(2) == b"PK":
            raise Wrong("is a .npz of several arrays, where a .npy of one is needed", path=path)
        file.seek(0)
        return _array(file, path.stat().st_size, path, "")


def read_arrays(path: str | Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Those of the named arrays that a .npz file has, each as `read_array` demands it. Others are not looked at.

    Raises: Missing, Wrong; the array's name is the field.

    Example: `read_arrays("samples/3f.npz", ["ranked"])["ranked"]`
    """
    with _archive(Path(path)) as archive:
        return dict(_members(archive, Path(path), names))


def array_names(path: str | Path) -> list[str]:
    """Names of the arrays in a .npz file.

    Raises: Missing, Wrong as `read_arrays`.
    """
    with _archive(Path(path)) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    with _opened(path) as file:
        start = file.read(4)
        file.seek(max(0, path.stat().st_size - 22))
        # zipfile itself passes over anything before and after
        if start != b"PK\3\4" or not file.read(4) == b"PK\5\6":
            raise Wrong("is no .npz file, or torn, or holds something before or after its arrays", path=path)
        try:
            archive = zipfile.ZipFile(file)
        except MemoryError:
            raise
        except Exception as error:  # BadZipFile, and on damaged directories struct.error, ValueError, OverflowError
            raise Wrong(f"is no .npz file, or torn: {error}", path=path) from None
        yield archive


def _members(archive: zipfile.ZipFile, path: Path, names: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    seen: set[str] = set()
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        if name in seen:
            raise Wrong("occurs twice", path=path, field=name)
        seen.add(name)
        if name not in names:
            continue
        try:
            content = archive.read(member)
        except MemoryError:
            raise
        except Exception as error:  # zlib.error, RuntimeError (encrypted), NotImplementedError (method), EOFError
            raise Wrong(f"cannot be unpacked: {error}", path=path, field=name) from None
        yield name, _array(io.BytesIO(content), len(content), path, name)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        names = [p.name for p in path.parent.glob("*.np[yz]")] if path.parent.is_dir() else []
        near = nearest(path.name, names)
        raise Missing("no such file", path=path, advice=f"nearest: {', '.join(near)}" if near else "") from None
    except OSError as error:
        raise Wrong(f"cannot be read: {error.strerror or error}", path=path) from None


def _array(file: IO[bytes], size: int, path: Path, name: str) -> np.ndarray:
    """The array that begins where `file` stands and must end at `size`."""
    try:
        version = np.lib.format.read_magic(file)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, by_columns, dtype = header(file)
    except MemoryError:
        raise
    except Exception as error:  # the header is Python's text: ValueError, SyntaxError, TypeError, TokenError, KeyError
        text = str(error) if isinstance(error, ValueError) else "its header is not that of an array"
        raise Wrong(f"is not a .npy array: {text}", path=path, field=name) from None
    if dtype.kind not in "fiu" or dtype.itemsize > 8:
        kind = f"values of type {dtype}" if dtype.kind in "fiu" else KINDS.get(dtype.kind, f"values of type {dtype}")
        raise Wrong(f"holds {kind}, it must hold numbers", path=path, field=name)
    count = math.prod(shape)
    expected, there = count * dtype.itemsize, size - file.tell()
    if min(shape, default=0) < 0 or expected != there:
        told = f"an array of {'x'.join(map(str, shape))} takes {expected} bytes, there are {there}"
        reason = "is torn" if expected > there else "holds something after its array"
        raise Wrong(f"{reason}: {told}", path=path, field=name)
    values = np.frombuffer(file.read(expected), dtype, count)
    return values.reshape(shape[::-1]).T if by_columns else values.reshape(shape)


def shape_of(array: np.ndarray) -> str:
    """`[3, 4]`, as errors tell it."""
    return f"[{', '.join(map(str, array.shape))}]"
