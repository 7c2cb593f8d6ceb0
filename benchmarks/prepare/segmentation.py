"""Pictures with label maps: VOC2012 and CamVid, in the layout of ADEChallengeData2016."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.prepare.downloads import Download, check_name
from benchmarks.prepare.packing import chosen, counted, encoded, rgb, shrunk, write_json, write_tars
from tasks.contract import TaskError
from tasks.data.pictures import read_picture

Say = Callable[[str], None]
Pair = tuple[str, Path, Path]  # id, picture, label map
LONG_SIDE, QUALITY = 320, 74
FOLDERS = {"train": "training", "val": "validation", "test": "test"}
VOC_SIZES = {"train": 560, "val": 220}
VOC_CLASSES = [
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]  # fmt: skip
CAMVID_SIZES = {"train": 367, "val": 101, "test": 233}
CAMVID_CLASSES = [
    "sky", "building", "pole", "road", "pavement", "tree", "sign_symbol", "fence", "car", "pedestrian", "bicyclist",
]  # fmt: skip


def voc(download: Download, out: Path, sizes: Mapping[str, int], say: Say) -> None:
    """`sizes` pictures of the official train and val lists; palette masks with 255 at the borders, as they are.

    Raises: TaskError for another layout, missing files, too short lists.
    """
    lists = download.find("ImageSets/Segmentation/train.txt").parent
    root = lists.parent.parent
    pairs: dict[str, list[Pair]] = {}
    for split, count in sizes.items():
        listing = lists / f"{split}.txt"
        if not listing.is_file():
            raise TaskError(f"no {listing}: the download is not whole")
        ids = [check_name(i, str(listing)) for i in listing.read_text(encoding="utf-8").split()]
        if len(ids) < count:
            raise TaskError(f"{listing} has {len(ids)} ids, {count} are needed: the download is not whole")
        pairs[split] = [
            (i, root / "JPEGImages" / f"{i}.jpg", root / "SegmentationClass" / f"{i}.png") for i in chosen(ids, count)
        ]
    _write("voc21", out, pairs, VOC_CLASSES, 255, say)


def camvid(download: Download, out: Path, sizes: Mapping[str, int], say: Say) -> None:
    """All pictures of the usual split, SegNet's layout (`train/`, `trainannot/`, ...), 11 = unlabelled.

    Raises: TaskError for another layout, missing files, a split of another size than `sizes`.
    """
    root = download.find("trainannot").parent
    pairs: dict[str, list[Pair]] = {}
    for split, count in sizes.items():
        files = sorted((root / split).glob("*.png"))
        if len(files) != count:
            raise TaskError(f"{root / split} has {len(files)} pictures, {count} are needed: the download is not whole")
        pairs[split] = [(p.stem, p, root / f"{split}annot" / p.name) for p in files]
    _write("camvid11", out, pairs, CAMVID_CLASSES, 11, say)


def _write(name: str, out: Path, pairs: Mapping[str, list[Pair]], classes: list[str], ignore: int, say: Say) -> None:
    folder = out / "segmentation"
    for split, found in pairs.items():
        write_tars(folder, f"{name}_{FOLDERS[split]}", _members(name, split, found, len(classes), ignore, say))
    write_json(folder / f"{name}_meta.json", {
        "name": name, "num_classes": len(classes), "ignore_label": ignore, "reduce_zero_label": False,
        "class_names": classes, **{s: [i for i, _, _ in found] for s, found in pairs.items()},
    })  # fmt: skip


def _members(
    name: str, split: str, pairs: list[Pair], classes: int, ignore: int, say: Say
) -> Iterator[tuple[str, bytes]]:
    for identity, picture, mask in counted(pairs, f"{name} {split}", say):
        image, labels = rgb(picture), read_picture(mask, str(mask))
        if labels.mode not in ("L", "P"):
            raise TaskError(f"{mask} has mode {labels.mode}; label maps have one channel or a palette")
        if labels.size != image.size:
            raise TaskError(f"{mask} is {labels.size} px, its picture {image.size}")
        wrong = sorted(set(np.unique(np.asarray(labels)).tolist()) - {*range(classes), ignore})
        if wrong:
            raise TaskError(f"{mask} has the label {wrong[0]}; labels are 0..{classes - 1} or {ignore} (ignored)")
        image = shrunk(image, long=LONG_SIDE)
        small = labels.resize(image.size, Image.Resampling.NEAREST)
        yield f"{name}/images/{FOLDERS[split]}/{identity}.jpg", encoded(image, "JPEG", QUALITY)
        yield f"{name}/annotations/{FOLDERS[split]}/{identity}.png", encoded(small, "PNG")
