"""What the small packs are made of: shrunken pictures, parquet and tar shards, choices that need no seed."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from benchmarks.prepare.downloads import check_name
from tasks.data.pictures import read_rgb

T = TypeVar("T")
SHARD_BYTES = 13_600_000  # files stay below 15 MB
SAY_EVERY = 5.0  # seconds


def chosen(names: Sequence[str], count: int) -> list[str]:
    """The `count` names with the smallest SHA-256, sorted: the same on every machine, whatever their order."""
    return sorted(sorted(names, key=lambda n: hashlib.sha256(n.encode()).hexdigest())[:count])


def shuffled(rows: Sequence[T], key: Callable[[T], str]) -> list[T]:
    """In the order of the SHA-256 of their keys."""
    return sorted(rows, key=lambda r: hashlib.sha256(key(r).encode()).hexdigest())


def distinct(files: Iterable[T], read: Callable[[T], bytes], seen: set[bytes]) -> list[T]:
    """Files whose bytes were not seen before; `seen` grows."""
    kept = []
    for file in files:
        digest = hashlib.sha256(read(file)).digest()
        if digest not in seen:
            seen.add(digest)
            kept.append(file)
    return kept


def shrunk(image: Image.Image, short: int = 0, long: int = 0) -> Image.Image:
    """The shorter or the longer side at most so many pixels, by Lanczos; never enlarged.

    Example: `shrunk(image, long=320).size`
    """
    wanted = short or long
    side = min(image.size) if short else max(image.size)
    if side <= wanted:
        return image
    size = tuple(max(1, round(s * wanted / side)) for s in image.size)
    return image.resize(size, Image.Resampling.LANCZOS)


def square(image: Image.Image, side: int) -> Image.Image:
    """The middle square of a picture, `side` x `side`."""
    width, height = image.size
    least = min(width, height)
    left, top = (width - least) // 2, (height - least) // 2
    return image.resize((side, side), Image.Resampling.LANCZOS, (left, top, left + least, top + least))


def rgb(path: Path) -> Image.Image:
    """Raises: TaskError naming a picture that cannot be decoded."""
    return Image.fromarray(read_rgb(path))


def encoded(image: Image.Image, kind: str, quality: int | None = None) -> bytes:
    """Bytes of a picture, `kind` WEBP, JPEG or PNG."""
    sink = io.BytesIO()
    image.save(sink, kind, **({} if quality is None else {"quality": quality}))
    return sink.getvalue()


def shards(items: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Runs of items of at most `SHARD_BYTES` in all."""
    shard: list[T] = []
    total = 0
    for item in items:
        if shard and total + size(item) > SHARD_BYTES:
            yield shard
            shard, total = [], 0
        shard.append(item)
        total += size(item)
    if shard:
        yield shard


def write_parquet(folder: Path, stem: str, rows: Iterable[dict[str, Any]], schema: Any) -> None:
    """`STEM_00.parquet`, `_01`...: zstd, a thousand rows a group; cut by the bytes of `image`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    for number, shard in enumerate(shards(rows, lambda row: len(row["image"]))):
        table = pa.Table.from_pylist(shard, schema=schema)
        pq.write_table(table, folder / f"{stem}_{number:02d}.parquet", compression="zstd", row_group_size=1000)


def write_tars(folder: Path, stem: str, files: Iterable[tuple[str, bytes]]) -> None:
    """`STEM_00.tar`, `_01`...: plain members without times or owners.

    Raises: TaskError for a name that would leave the folder it is unpacked to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number, shard in enumerate(shards(files, lambda file: len(file[1]) + 2 * tarfile.BLOCKSIZE)):
        with tarfile.open(folder / f"{stem}_{number:02d}.tar", "w") as tar:
            for name, content in shard:
                member = tarfile.TarInfo(check_name(name, stem))
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def counted(items: Sequence[T], what: str, say: Callable[[str], None]) -> Iterator[T]:
    """The items, with a line of progress every few seconds and one at the end."""
    started = last = time.perf_counter()
    for number, item in enumerate(items, 1):
        yield item
        now = time.perf_counter()
        if now - last >= SAY_EVERY or number == len(items):
            rate = number / max(now - started, 1e-9)
            left = f", {(len(items) - number) / rate:.0f} s left" if number < len(items) else ""
            say(f"  {what}: {number}/{len(items)}, {rate:.0f} a second{left}")
            last = now
