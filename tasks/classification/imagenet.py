"""ImageNet-1k in its usual layout, and the test sets that share its classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tasks.classification.readers import Labelled, read_folder
from tasks.contract import TaskError
from tasks.data.formats import read_json

FOLDERS = {
    "val": "imagenet/val", "real": "imagenet/val", "v2": "imagenetv2-matched-frequency-format-val", "a": "imagenet-a",
    "r": "imagenet-r", "sketch": "sketch",
}  # fmt: skip
SOURCES = {
    "train": "https://image-net.org (train/WNID/*.JPEG and val/WNID/*.JPEG under imagenet/)",
    "minival": "https://image-net.org (it is held out of imagenet/train)",
    "val": "https://image-net.org (val/WNID/*.JPEG under imagenet/)",
    "real": "https://github.com/google-research/reassessed-imagenet (real.json beside imagenet/val)",
    "v2": "https://huggingface.co/datasets/vaishaal/ImageNetV2",
    "a": "https://people.eecs.berkeley.edu/~hendrycks/imagenet-a.tar",
    "r": "https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar",
    "sketch": "https://github.com/HaohanWang/ImageNet-Sketch",
}


def imagenet_missing(root: Path, splits: tuple[str, ...]) -> list[str]:
    """What is not there, each with its source."""
    wanted = {s: root / ("imagenet/train" if s in ("train", "minival") else FOLDERS[s]) for s in splits}
    absent = [f"no {p}; get it from {SOURCES[s]}" for s, p in wanted.items() if not p.is_dir()]
    if "real" in splits and not (root / "imagenet" / "real.json").is_file():
        absent.append(f"no {root / 'imagenet' / 'real.json'}; get it from {SOURCES['real']}")
    return absent


def imagenet_classes(root: Path) -> list[str]:
    """The WordNet ids in the order of the labels: sorted names of the folders of train, or of val."""
    for part in ("train", "val"):
        folder = root / "imagenet" / part
        if folder.is_dir() and (names := sorted(p.name for p in folder.iterdir() if p.is_dir())):
            return names
    raise TaskError(f"no {root / 'imagenet' / 'train'}; get it from {SOURCES['train']}")


def read_imagenet(root: Path, split: str) -> Labelled:
    """A split: train, val, real (ReaL labels of val), v2, a, r, sketch.

    In A and R only their own 200 classes may be predicted, as their authors score them.

    Raises: TaskError naming what is missing and where it is to be had.
    """
    if split == "train":
        return read_folder(root / "imagenet" / "train", imagenet_classes(root))
    if absent := imagenet_missing(root, (split,)):
        raise TaskError(absent[0])
    classes, folder = imagenet_classes(root), root / FOLDERS[split]
    if split == "v2":
        # folders are the labels themselves; sorted as text they would be 0, 1, 10, 100
        numbered = read_folder(folder, [str(i) for i in range(len(classes))])
        return Labelled(numbered.names, numbered.labels, numbered.read, tuple(classes))
    found = read_folder(folder, classes, partial=split in ("a", "r"))
    if split == "real":
        return _reassessed(found, root / "imagenet" / "real.json")
    allowed = tuple(np.unique(found.labels).tolist()) if split in ("a", "r") else None
    return Labelled(found.names, found.labels, found.read, found.classes, allowed)


def _reassessed(val: Labelled, path: Path) -> Labelled:
    """Sets of right labels, by the number in the file name; pictures without any are passed over in scoring."""
    answers = read_json(path)
    numbers = [int(name.rpartition("_")[2].split(".")[0]) for name in val.names]
    if max(numbers) > len(answers):
        raise TaskError(f"{path} has {len(answers)} answers, but a picture has the number {max(numbers)}")
    width = max(1, max(len(a) for a in answers))
    labels = np.full((len(numbers), width), -1, np.int64)
    for row, number in enumerate(numbers):
        right = answers[number - 1]
        labels[row, : len(right)] = right
    return Labelled(val.names, labels, val.read, val.classes)
