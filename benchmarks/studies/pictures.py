"""Validation pictures of a study at one size: Tiny ImageNet, or class folders such as ImageNet's `val/WNID/*.JPEG`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.engine.running.summary import duration
from benchmarks.studies.tiny_imagenet import Pictures, load_tiny_imagenet
from tasks.data.pictures import read_rgb


def subset(pictures: Pictures, count: int) -> Pictures:
    """At most `count` pictures, evenly spread (packs are sorted by class)."""
    stride = max(1, len(pictures.labels) // count)
    return Pictures(pictures.images[::stride][:count], pictures.labels[::stride][:count], pictures.classes)


def _square(image: Tensor, side: int, crop: float) -> Tensor:
    """Shorter side to `side / crop`, antialiased bicubic, the centre cut: `[3, h, w]` uint8 to `[3, side, side]`."""
    height, width = image.shape[1:]
    scale = int(side / crop) / min(height, width)
    size = (max(side, round(height * scale)), max(side, round(width * scale)))
    whole = F.interpolate(image[None].float(), size=size, mode="bicubic", antialias=True)[0].round().clamp(0, 255)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    return whole[:, top : top + side, left : left + side].to(torch.uint8)


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def followed(
    batches: Iterator[tuple[Tensor, Tensor]], total: int, say: Callable[[str], None] = _to_stderr, every: float = 10.0
) -> Iterator[tuple[Tensor, Tensor]]:
    """The same batches, with a line at the first, every `every` seconds, and at the end: how far, how fast, time left.

    Example: `for images, labels in followed(batches, 1000): ...` prints "250/1000 pictures, 20 a second, 38 s left"
    """
    seen, start = 0, time.monotonic()
    said = start - every
    for images, labels in batches:
        now = time.monotonic()
        if now - said >= every:
            rate = seen / max(now - start, 1e-9)
            left = f", {rate:.0f} a second, {duration((total - seen) / rate)} left" if seen else ""
            say(f"{seen}/{total} pictures{left}")
            said = now
        yield images, labels
        seen += len(labels)
    say(f"{seen} pictures in {duration(time.monotonic() - start)}")


def validation_pictures(folder: Path, count: int, side: int, crop: float = 1.0) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of uint8 `[B, 3, side, side]` and labels; at most `count` pictures, evenly spread over the classes.

    Of class folders the middle `crop` of the shorter side is seen, as timm's validation does; Tiny ImageNet whole.

    Labels of class folders are their places in sorted order, which is ImageNet's own for WordNet ids.

    Raises: ValueError where the folder holds neither Tiny ImageNet nor class folders.
    """
    classes = sorted(p for p in (folder / "val").glob("*") if p.is_dir() and p.name != "images")
    if classes:
        files = [(f, i) for i, one in enumerate(classes) for f in sorted(one.iterdir())]
        files = files[:: max(1, len(files) // count)][:count]
        yield from followed(_of_files(files, side, crop), len(files))
        return
    pictures = subset(load_tiny_imagenet(folder, "val"), count)
    yield from followed(_of_pack(pictures, side), len(pictures.labels))


def _of_files(files: list[tuple[Path, int]], side: int, crop: float) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(files), 50):
        part = files[start : start + 50]
        images = [_square(torch.from_numpy(read_rgb(f, str(f))).permute(2, 0, 1), side, crop) for f, _ in part]
        yield torch.stack(images), torch.tensor([label for _, label in part])


def _of_pack(pictures: Pictures, side: int) -> Iterator[tuple[Tensor, Tensor]]:
    for images, labels in zip(pictures.images.split(50), pictures.labels.split(50), strict=True):
        resized = F.interpolate(images.float(), size=(side, side), mode="bilinear", align_corners=False)
        yield resized.round().clamp(0, 255).to(torch.uint8), labels
