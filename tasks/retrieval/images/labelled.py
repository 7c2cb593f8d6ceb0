"""Labelled pictures for image-to-image retrieval: parquet with image bytes and labels, or a folder a class."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.contract import TaskError
from tasks.data.formats import read_columns
from tasks.data.scenes import SCENES, scenes_folder

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


@dataclass(frozen=True)
class LabelledData:
    """`files`: pattern of parquet files (columns image, label) or a folder of class folders; may hold `{split}`."""

    files: str
    sizes: Mapping[str, int | None] = field(default_factory=dict)
    source: str = ""
    cutoffs: tuple[int, ...] = (1, 2, 4, 8)


DATA: dict[str, LabelledData] = {
    "cars98": LabelledData(
        "classification/cars98_{split}_*.parquet", {"train": None, "test": 980},
        "run_all.py prepare cars98 --from PATH (Stanford Cars, Krause et al. 2013)",
    ),
    "imagewoof9": LabelledData(
        "classification/imagewoof9_{split}_*.parquet", {"train": 1350, "test": 540},
        "run_all.py prepare imagewoof9 --from PATH (fastai Imagewoof)",
    ),
    "scenes": LabelledData(f"{SCENES}/classification", {"train": 480, "test": 240}, "drawn on the first run"),
}  # fmt: skip


@dataclass(frozen=True)
class LabelledSet:
    """Image i is `read(i)` (encoded bytes), its class `labels[i]` (int64)."""

    names: list[str]
    labels: np.ndarray
    read: Callable[[int], bytes]

    def fingerprint(self) -> str:
        """Hash of names and labels."""
        return hashlib.sha256(repr((self.names, self.labels.tolist())).encode()).hexdigest()[:16]


def labelled_data(name: str) -> LabelledData:
    """The set behind a name; `some/folder/` (with a slash) is a folder with one folder a class in it, or in its
    subfolders train and test.

    Raises: TaskError naming the nearest known sets.
    """
    if name in DATA:
        return DATA[name]
    if "/" in name:
        return LabelledData(name, {}, "your own folder")
    near = difflib.get_close_matches(name, DATA, 3, 0.4) or sorted(DATA)
    raise TaskError(f"no labelled data {name!r}; nearest: {', '.join(near)}, or a folder with a slash at its end")


def load_labelled(root: str | Path, name: str, split: str) -> LabelledSet:
    """Read a split; pictures stay encoded until asked for.

    Raises: TaskError for missing files, splits that do not exist or have another size, empty splits.

    Example: `len(load_labelled("data", "cars98", "test").labels)` is 980.
    """
    root, spec = Path(root), labelled_data(name)
    if spec.sizes and split not in spec.sizes:
        raise TaskError(f"{name} has no split {split!r}; it has: {', '.join(spec.sizes)}")
    if name == "scenes":
        scenes_folder(root)
    found = _parquet(root, spec, split) if spec.files.endswith(".parquet") else _folder(root, spec, split)
    expected = spec.sizes.get(split)
    if expected is not None and len(found.names) != expected:
        count = len(found.names)
        raise TaskError(f"split {split!r} of {name} has {count} images under {root}, it must have {expected}")
    if not found.names:
        raise TaskError(f"split {split!r} of {name} is empty")
    return found


def _parquet(root: Path, spec: LabelledData, split: str) -> LabelledSet:
    pattern = spec.files.format(split=split)
    paths = sorted(root.glob(pattern))
    if not paths:
        raise TaskError(f"no {pattern} under {root}; get it from {spec.source}")
    table = read_columns(paths, ("image", "label"), ("filename",))
    names = table["filename"].to_pylist() if "filename" in table.column_names else [str(i) for i in range(len(table))]
    images = table["image"]
    return LabelledSet(names, table["label"].to_numpy().astype(np.int64), lambda i: images[i].as_py())


def _folder(root: Path, spec: LabelledData, split: str) -> LabelledSet:
    folder = root / spec.files
    if (folder / split).is_dir():
        folder = folder / split
    elif split != "test" or not folder.is_dir():
        raise TaskError(f"no folder {folder / split}")
    classes = sorted(p.name for p in folder.iterdir() if p.is_dir())
    files = ((label, path) for label, name in enumerate(classes) for path in sorted((folder / name).iterdir()))
    paths = [(label, path) for label, path in files if path.suffix.lower() in SUFFIXES]
    names = [str(p.relative_to(folder)) for _, p in paths]
    return LabelledSet(names, np.array([c for c, _ in paths], dtype=np.int64), lambda i: paths[i][1].read_bytes())


class LabelledDataset:
    """`dataset[i] -> (image uint8 [3, S, S], label)`."""

    def __init__(self, labelled: LabelledSet, size: int):
        self.set, self.size = labelled, size

    def __len__(self) -> int:
        return len(self.set.names)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        from tasks.data.decoding import decode_square

        return decode_square(self.set.read(i), self.size, self.set.names[i]), int(self.set.labels[i])
