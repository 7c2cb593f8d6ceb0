"""ImageNet-1k in the layouts of its downloads, and the test sets that share its classes."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tasks.data.cards import Form
from tasks.data.documents import read_json
from tasks.data.errors import Missing, Wrong, as_one_line, shown
from tasks.data.readers.classes import class_names, read_class_folders
from tasks.data.readers.files import Files, pictures_under, read_text
from tasks.data.splits import Labelled

PLACES = ("imagenet", "imagenet/ILSVRC/Data/CLS-LOC", "ILSVRC/Data/CLS-LOC", "ILSVRC2012", "imagenet1k")
WNID = re.compile(r"n\d{8}")
NUMBER = re.compile(r"_(\d+)\.\w+$")
KAGGLE, SLIM, CAFFE = "LOC_val_solution.csv", "imagenet_2012_validation_synset_labels.txt", "val.txt"
LISTS = f"{KAGGLE}, {SLIM}, {CAFFE}, or the devkit's data/ (ILSVRC2012_validation_ground_truth.txt and meta.mat)"


def imagenet_folder(root: Path) -> Path:
    """The first of the usual places that has a train or val."""
    for place in PLACES:
        if any((root / place / part).is_dir() for part in ("train", "val")):
            return root / place
    return root / PLACES[0]


def imagenet_classes(root: Path, form: Form, advice: str = "") -> list[str]:
    """The WordNet ids in the order of the labels: sorted names of the folders of train, or of val.

    Raises: Missing where neither is there, or classes are lacking.
    """
    folder = imagenet_folder(root)
    for part in ("train", "val"):
        if (folder / part).is_dir() and (names := class_names(folder / part)):
            if form.class_count is not None and len(names) != form.class_count:
                raise Missing(f"has {len(names)} class folders, it must have {form.class_count}", path=folder / part,
                              advice=advice)  # fmt: skip
            return names
    raise Missing("no such folder", path=folder / "train", advice=advice)


def read_imagenet(root: Path, form: Form, split: str, advice: str = "") -> Labelled:
    """A split: train, val, real (ReaL labels of val), v2, a, r, sketch.

    In A and R only their own 200 classes may be predicted, as their authors score them.

    Raises: Missing or Wrong naming what is the matter and where the split is to be had.
    """
    card = form.splits[split]
    folder = imagenet_folder(root) / ("val" if split == "real" else split)
    if split not in ("train", "val", "real"):
        folder = root / card.path
    own = f"get it from {card.source}" if card.source else advice
    if not folder.is_dir():
        raise Missing("no such folder", path=folder, advice=own)
    answers = imagenet_folder(root) / "real.json"
    if split == "real" and not answers.is_file():
        raise Missing("no such file", path=answers, advice=own)
    classes = imagenet_classes(root, form, advice)
    if split in ("val", "real") and not class_names(folder):
        found = _flat(folder, classes)
    elif split == "v2":
        # folders are the labels themselves; sorted as text they would be 0, 1, 10, 100
        numbered = read_class_folders(folder, [str(i) for i in range(len(classes))])
        return Labelled(numbered.names, numbered.pictures, labels=numbered.labels, classes=tuple(classes),
                        notes=numbered.notes)  # fmt: skip
    else:
        found = read_class_folders(folder, classes, partial=split in ("a", "r"))
    if split == "real":
        return _reassessed(found, answers)
    allowed = tuple(np.unique(found.labels).tolist()) if split in ("a", "r") else None
    return Labelled(found.names, found.pictures, labels=found.labels, classes=found.classes, allowed=allowed,
                    notes=found.notes)  # fmt: skip


def _flat(folder: Path, classes: list[str]) -> Labelled:
    """`val/` as the official tar unpacks it; its labels come from one of the usual lists beside it."""
    names = sorted(name for name, picture in pictures_under(folder) if picture)
    if not names:
        raise Missing("has no pictures", path=folder)
    index = {name: i for i, name in enumerate(classes)}
    listed, source = {}, None
    for place in (folder.parent, folder, folder.parent.parent, *_devkits(folder.parent)):
        if found := _listed(place):
            source, listed = found[0], dict(found[1])
            break
    if source is None:
        raise Missing("has its pictures in no class folders, and no list of their labels is beside it", path=folder,
                      advice=f"put there one of: {LISTS}")  # fmt: skip
    labels = np.empty(len(names), np.int64)
    for i, name in enumerate(names):
        wnid = listed.get(name.rpartition("/")[2].split(".")[0])
        if wnid is None:
            raise Missing(f"has no label of {name}", path=source)
        if isinstance(wnid, int) and wnid < len(classes):
            wnid = classes[wnid]
        if wnid not in index:
            raise Wrong(f"{shown(wnid)} is no class folder of train", path=source, place=name)
        labels[i] = index[wnid]
    return Labelled(names, Files(folder, names), labels=labels, classes=tuple(classes))


def _devkits(folder: Path) -> Iterator[Path]:
    for devkit in sorted(folder.glob("ILSVRC2012_devkit*")) + sorted(folder.parent.glob("ILSVRC2012_devkit*")):
        yield devkit / "data"
    yield folder / "data"


def _listed(place: Path) -> tuple[Path, Iterator[tuple[str, str | int]]] | None:
    """The list of labels in a folder: file, and (name without suffix, WordNet id or label)."""
    if (path := place / KAGGLE).is_file():
        rows = [row for row in csv.reader(read_text(path).splitlines()) if len(row) > 1]
        return path, ((row[0], row[1].split()[0] if row[1].split() else "") for row in rows[1:])
    if (path := place / SLIM).is_file():
        return path, ((_validation(i), wnid) for i, wnid in enumerate(read_text(path).split(), 1))
    if (path := place / CAFFE).is_file():
        pairs = [line.split() for line in read_text(path).splitlines() if line.strip()]
        if wrong := next((i for i, p in enumerate(pairs, 1) if len(p) != 2), None):
            raise Wrong("must hold a file name and a label", path=path, place=f"line {wrong}")
        return path, ((name.rpartition("/")[2].split(".")[0], int(t) if t.isdigit() else t) for name, t in pairs)
    if (path := place / "ILSVRC2012_validation_ground_truth.txt").is_file():
        wnids = _synsets(place / "meta.mat")
        numbers = read_text(path).split()
        if wrong := next((i for i, n in enumerate(numbers, 1) if not n.isdigit() or int(n) not in wnids), None):
            raise Wrong(f"{shown(numbers[wrong - 1])} is no ILSVRC2012_ID", path=path, place=f"line {wrong}")
        return path, ((_validation(i), wnids[int(n)]) for i, n in enumerate(numbers, 1))
    return None


def _validation(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}"


def _synsets(path: Path) -> dict[int, str]:
    """WordNet ids by ILSVRC2012_ID, which is not the order of labels."""
    if not path.is_file():
        raise Missing("no such file: the ground truth's numbers mean nothing without it", path=path)
    from scipy.io import loadmat

    try:
        synsets = loadmat(str(path), squeeze_me=True)["synsets"]
        return {int(one[0]): str(one[1]) for one in synsets}
    except Exception as error:  # scipy raises what it likes on a torn file
        raise Wrong(f"cannot be read as the devkit's meta.mat: {as_one_line(error)}", path=path) from error


def _reassessed(val: Labelled, path: Path) -> Labelled:
    """Sets of right labels, by the number in the file name; pictures without any are passed over in scoring."""
    answers = read_json(path)
    count = len(val.classes)
    if not isinstance(answers, list):
        raise Wrong("must be a list of lists of labels", path=path)
    for i, right in enumerate(answers):
        if not isinstance(right, list) or not all(type(label) is int and 0 <= label < count for label in right):
            raise Wrong(f"must be a list of labels from 0 to {count - 1}, not {shown(right)}", path=path,
                        place=f"answer {i}")  # fmt: skip
    width = max(1, max(map(len, answers), default=0))
    labels = np.full((len(val), width), -1, np.int64)
    for row, name in enumerate(val.names):
        match = NUMBER.search(name)
        number = int(match[1]) if match else 0
        if not 1 <= number <= len(answers):
            raise Wrong(f"has {len(answers)} answers, none for {name}", path=path)
        right = answers[number - 1]
        labels[row, : len(right)] = right
    return Labelled(val.names, val.pictures, labels=labels, classes=val.classes, notes=val.notes)
