"""Tiny ImageNet in memory, from the parquet pack or the official folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tasks.data.documents import read_json
from tasks.data.pictures import read_rgb
from tasks.data.readers.classes import read_class_table
from tasks.data.readers.tables import open_parquet

SIDE = 64


@dataclass(frozen=True)
class Pictures:
    """`images` uint8 `[N, 3, 64, 64]`, `labels` int64 `[N]`, `classes` WordNet ids by label."""

    images: Tensor
    labels: Tensor
    classes: list[str]


def _decode(sources: Iterable[bytes | Path], count: int) -> Tensor:
    pixels = np.empty((count, 3, SIDE, SIDE), np.uint8)
    for i, source in enumerate(sources):
        image = read_rgb(source, f"picture {i}" if isinstance(source, bytes) else str(source))
        if image.shape != (SIDE, SIDE, 3):
            raise ValueError(f"picture {i} is {image.shape[1]}x{image.shape[0]} px, Tiny ImageNet has {SIDE}x{SIDE}")
        pixels[i] = image.transpose(2, 0, 1)
    return torch.from_numpy(pixels)


def load_tiny_imagenet(folder: Path, split: str) -> Pictures:
    """Decode one split once.

    Args:
        folder: with `tinyimagenet100_{split}_*.parquet` and `tinyimagenet100_meta.json`, or the official
            `tiny-imagenet-200` (`wnids.txt`, `train/WNID/images/*.JPEG`, `val/val_annotations.txt`).
        split: `train` or `val`.

    Raises: ValueError where neither layout is found.
    """
    shards = sorted(folder.glob(f"tinyimagenet100_{split}_*.parquet"))
    if shards:
        classes = read_json(folder / "tinyimagenet100_meta.json")["wnids"]
        pack = read_class_table(open_parquet(shards), names=classes)
        encoded = (pack.pictures.read(i) for i in range(len(pack)))
        return Pictures(_decode(encoded, len(pack)), torch.from_numpy(pack.labels), classes)
    if not (folder / "wnids.txt").exists():
        raise ValueError(
            f"{folder} has neither tinyimagenet100_{split}_*.parquet nor wnids.txt; tiny-imagenet-200.zip is at "
            "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
        )
    classes = sorted((folder / "wnids.txt").read_text(encoding="utf-8").split())
    index = {name: i for i, name in enumerate(classes)}
    if split == "train":
        files = [f for name in classes for f in sorted((folder / "train" / name / "images").glob("*.JPEG"))]
        targets = [index[f.parent.parent.name] for f in files]
    else:
        lines = [
            line.split("\t")
            for line in (folder / "val" / "val_annotations.txt").read_text(encoding="utf-8").splitlines()
        ]
        files = [folder / "val" / "images" / line[0] for line in lines]
        targets = [index[line[1]] for line in lines]
    return Pictures(_decode(files, len(files)), torch.tensor(targets), classes)
