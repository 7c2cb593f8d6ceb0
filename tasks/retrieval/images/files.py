"""Encoded pictures out of folders and tars."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

from tasks.contract import TaskError


def folder_reader(root: Path, images: str, names: list[str], source: str) -> Callable[[int], bytes]:
    """A function from index to the bytes of `names[index]`, out of a folder or a pattern of tars under `root`.

    In a tar a picture is found by its file name, whatever its folder there. Tars are read at remembered offsets, so
    that workers can share the reader.

    Raises: TaskError naming the first picture that is missing and how many are.
    """
    if not images.endswith(".tar"):
        folder = root / images
        absent = [n for n in names if not (folder / n).is_file()]
        if absent:
            raise _missing(absent, names, folder, source)
        return lambda i: (folder / names[i]).read_bytes()
    places: dict[str, tuple[Path, int, int]] = {}
    for path in sorted(root.glob(images)):
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile():
                    places[Path(member.name).name] = (path, member.offset_data, member.size)
    absent = [n for n in names if Path(n).name not in places]
    if absent:
        raise _missing(absent, names, root / images, source)

    def read(i: int) -> bytes:
        path, offset, size = places[Path(names[i]).name]
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(size)

    return read


def _missing(absent: list[str], names: list[str], place: Path, source: str) -> TaskError:
    return TaskError(f"{len(absent)} of {len(names)} images missing in {place}, the first is {absent[0]}; see {source}")
