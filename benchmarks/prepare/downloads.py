"""Official downloads as they come: folders, archives, folders of archives. Archives are unpacked with care."""

from __future__ import annotations

import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from tasks.contract import TaskError

# what the readers of archives raise for damaged ones; NotImplementedError, a RuntimeError: another compression
FAULTS = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, ValueError,
    RuntimeError,
)  # fmt: skip
ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
DEPTH = ("", "*/", "*/*/", "*/*/*/")  # how far below a given path its parts are looked for
SPARE = 64 << 20  # bytes of the disk that unpacking leaves alone


class Download:
    """The parts of an official download, looked for in what the user gave.

    Args: paths: folders or archives. work: a folder to be made, on a disk with room for what is unpacked.
    Raises: TaskError for a path that does not exist.

    Example: `Download([Path("tiny-imagenet-200.zip")], work).find("wnids.txt").parent`
    """

    def __init__(self, paths: Sequence[Path], work: Path, say: Callable[[str], None] = print):
        for path in paths:
            if not path.exists():
                raise TaskError(f"no {path}")
            if path.is_file() and not is_archive(path):
                raise TaskError(f"{path} is neither a folder nor an archive ({' '.join(ARCHIVES)})")
        self.paths, self.work, self.say = list(paths), work, say
        self.roots = [p for p in paths if p.is_dir()]
        self._packed = [p for p in paths if p.is_file()]
        for folder in self.roots:
            self._packed += sorted(p for p in folder.iterdir() if p.is_file() and is_archive(p))

    def find(self, *markers: str) -> Path:
        """The first place of a relative path; several are alternatives. Archives are unpacked when they are needed.

        Raises: TaskError saying what was looked for, and where.
        """
        while True:
            for marker in markers:
                for root in self.roots:
                    for depth in DEPTH:
                        found = [p for p in sorted(root.glob(depth + marker)) if "__MACOSX" not in p.parts]
                        if found:
                            return found[0]
            if not self._packed:
                places = ", ".join(map(str, self.paths))
                raise TaskError(f"no {' or '.join(markers)} in {places}: another layout than the official download")
            archive = self._packed.pop(0)
            target = self.work / f"unpacked_{len(self.roots)}"
            self.say(f"unpacking {archive}")
            unpack(archive, target)
            self.roots.append(target)


def is_archive(path: Path) -> bool:
    """By its name.

    Example: `is_archive(Path("imagewoof2.tgz"))`
    """
    return path.name.lower().endswith(ARCHIVES)


def unpack(archive: Path, target: Path) -> None:
    """Unpack into a new folder; nothing is written outside of it, no links out of it, no devices.

    Raises: TaskError for a broken archive, a member that would leave the folder, or one larger than the free disk.

    Example: `unpack(Path("val2017.zip"), Path("work/val2017"))`
    """
    target.mkdir(parents=True)
    try:
        if archive.name.lower().endswith(".zip"):
            _unzip(archive, target)
        else:
            _untar(archive, target)
    except tarfile.FilterError as error:
        raise TaskError(f"{archive} is not unpacked: {error}") from error
    except TaskError:
        raise
    except FAULTS as error:
        why = " ".join(str(error).split()) or "it ends too early"
        raise TaskError(f"{archive} cannot be unpacked: {why}; download it again") from error


def _room(target: Path) -> int:
    return shutil.disk_usage(target).free - SPARE


def _untar(archive: Path, target: Path) -> None:
    room, total = _room(target), 0
    with tarfile.open(archive) as tar:
        for member in tar:
            total += member.size
            if total > room:
                raise TaskError(f"{archive} needs more than the {room / 1e9:.1f} GB that are free at {target}")
            if "__MACOSX" not in member.name:
                tar.extract(member, target, filter="data")


def _unzip(archive: Path, target: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        members = [m for m in packed.infolist() if "__MACOSX" not in m.filename]
        for member in members:
            check_name(member.filename, str(archive))
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise TaskError(f"{archive} is not unpacked: {member.filename!r} is a link or a device")
            if member.flag_bits & 1:
                raise TaskError(f"{archive} is not unpacked: {member.filename!r} is encrypted; unpack it by hand")
        # sizes are as the archive says; zipfile reads no more than that of a member
        if sum(m.file_size for m in members) > (room := _room(target)):
            raise TaskError(f"{archive} needs more than the {room / 1e9:.1f} GB that are free at {target}")
        for member in members:
            packed.extract(member, target)


def check_name(name: str, where: str) -> str:
    """A relative path without steps upwards, as it came.

    Raises: TaskError naming a path that would leave the folder it is meant for.

    Example: `check_name("images/a.jpg", "list.txt")`
    """
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in name:
        raise TaskError(f"{where}: {name!r} would leave its folder")
    return name
