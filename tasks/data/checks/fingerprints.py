"""The identity of a split is its content: names, labels and the bytes of every picture, remembered by path and time."""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backbones.weights.download import cache_folder
from tasks.data.checks.progress import tracked
from tasks.data.checks.remembered import write_whole
from tasks.data.encoded import Pictures
from tasks.data.errors import Missing, Wrong

LARGE = 2 << 30  # bytes of pictures from which one in a hundred is read
EVERY = 100
SETTLED = 2.0  # seconds: a file that was changed so shortly before may change again within one tick of its clock
FORM = 1  # raise it when the same content shall have another fingerprint


@dataclass(frozen=True)
class Hashes:
    """`of` uint8 [N, 16], the hash of each picture (zeros where it was not read); `read` bool [N]; `sizes` int64 of
    each file."""

    of: np.ndarray
    read: np.ndarray
    sizes: np.ndarray

    @property
    def whole(self) -> bool:
        return bool(self.read.all())


def fingerprint(content: Sequence[Any], pictures: Sequence[Pictures]) -> str:
    """16 hexadecimal digits; and ` (1 in 100)` where the pictures are larger than `LARGE`.

    Hashed are `content` (names and labels: arrays, texts, lists) and the bytes of all pictures; of large splits sizes
    of files and the bytes of every hundredth picture. Hashes of pictures are kept in `FLEXIVIT_CACHE` under path, size
    and times of change.

    Raises: DataError for a picture that is missing or cannot be read.

    Example: `labelled_set("cars98", "data").load("test").fingerprint` is `9a0c5f0f3d1e7b42`, say
    """
    digest = hashlib.sha256(f"{FORM}".encode())
    for part in content:
        _add(digest, part)
    whole = True
    for own in pictures:
        hashes = picture_hashes(own)
        digest.update(hashes.of.tobytes())
        if not hashes.whole:
            whole = False
            digest.update(hashes.sizes.tobytes())
    return digest.hexdigest()[:16] + ("" if whole else f" (1 in {EVERY})")


def picture_hashes(pictures: Pictures) -> Hashes:
    """Hashes of the pictures of a split; what was hashed before and has not changed since is not read again.

    Raises: DataError for a picture that is missing or cannot be read.
    """
    files = pictures.files()
    single = pictures.single  # else containers, which change as a whole
    sizes, times = _stat(files)
    settled = times.max(1, initial=0) < (time.time() - SETTLED) * 1e9 if len(times) else np.empty(0, bool)
    key = hashlib.sha256("\0".join([str(FORM), str(len(pictures)), os.getcwd(), *files]).encode()).hexdigest()
    if not single:
        key += hashlib.sha256("\0".join(pictures.where(i) for i in range(len(pictures))).encode()).hexdigest()
    place = cache_folder() / "fingerprints" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"
    wanted = np.ones(len(pictures), bool)
    if sizes.sum() > LARGE:
        wanted[:] = False
        wanted[::EVERY] = True
    known, hashes = _remembered(place, sizes, times, single, len(pictures))
    todo = np.flatnonzero(wanted & ~known)
    for i in tracked(todo.tolist(), "hashing pictures"):
        content = pictures.read(i)
        hashes[i] = np.frombuffer(hash_of(content), np.uint8)
    if len(todo):
        kept = wanted & (settled if single else bool(settled.all()))
        _remember(place, sizes, times, kept, hashes)
    hashes[~wanted] = 0
    return Hashes(hashes, wanted, sizes)


def hash_of(content: bytes | np.ndarray) -> bytes:
    """16 bytes of SHA-256."""
    if isinstance(content, np.ndarray):
        content = f"{content.shape}{content.dtype}".encode() + np.ascontiguousarray(content).tobytes()
    return hashlib.sha256(content).digest()[:16]


def _add(digest: Any, part: Any) -> None:
    """Parts are told apart: what one ends with is never taken for the next one's beginning."""
    if isinstance(part, np.ndarray) and part.dtype != object:
        content = f"{part.dtype.str}{part.shape}".encode() + np.ascontiguousarray(part).tobytes()
    else:
        content = json.dumps(part.tolist() if isinstance(part, np.ndarray) else part).encode()
    digest.update(len(content).to_bytes(8, "little"))
    digest.update(content)


def _stat(files: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Sizes int64 [F], and [F, 2] the times of change of content and of the entry (copying keeps the first)."""
    sizes, times = np.zeros(len(files), np.int64), np.zeros((len(files), 2), np.int64)
    for i, path in enumerate(files):
        try:
            found = os.stat(path)
        except FileNotFoundError:
            raise Missing("no such file", path=path) from None
        except OSError as error:
            raise Wrong(f"cannot be read: {error.strerror or error}", path=path) from error
        sizes[i], times[i] = found.st_size, (found.st_mtime_ns, found.st_ctime_ns)
    return sizes, times


def _remembered(
    place: Path, sizes: np.ndarray, times: np.ndarray, single: bool, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which pictures are known, bool [N], and their hashes; a file that is torn or of another form knows none."""
    none = np.zeros(count, bool), np.zeros((count, 16), np.uint8)
    try:
        with np.load(place, allow_pickle=False) as kept:
            known, hashes, old_sizes, old_times = (kept[k] for k in ("known", "hashes", "sizes", "times"))
    except (OSError, ValueError, KeyError, EOFError):
        return none
    except Exception:  # zipfile and zlib have errors of their own for what is torn
        return none
    if hashes.shape != (count, 16) or old_sizes.shape != sizes.shape or known.shape != (count,):
        return none
    same = (old_sizes == sizes) & (old_times == times).all(1)
    return (known & same if single else known & same.all()), hashes


def _remember(place: Path, sizes: np.ndarray, times: np.ndarray, known: Any, hashes: np.ndarray) -> None:
    sink = io.BytesIO()
    np.savez(sink, sizes=sizes, times=times, known=known, hashes=hashes)
    write_whole(place, sink.getvalue())
