"""Labelled pictures out of folders, parquet, folders saved by Hugging Face `datasets`, and torchvision's data sets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.contract import TaskError
from tasks.data.formats import read_columns, read_json

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm")


@dataclass(frozen=True)
class Labelled:
    """Picture i is `read(i)`: encoded bytes, a PIL image or an array. `labels` int64 [N] or [N, L], -1 where fewer.

    `classes`: names by label. `allowed`: labels a prediction may take, None for all.
    """

    names: Sequence[str]
    labels: np.ndarray
    read: Callable[[int], Any]
    classes: tuple[str, ...]
    allowed: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def fingerprint(self) -> str:
        """Hash of names and labels."""
        digest = hashlib.sha256("\n".join(self.names).encode())
        digest.update(np.ascontiguousarray(self.labels).tobytes())
        return digest.hexdigest()[:16]

    def subset(self, index: np.ndarray) -> Labelled:
        """The pictures at `index`, in that order."""
        names, read = [self.names[i] for i in index], self.read
        return Labelled(names, self.labels[index], lambda i: read(int(index[i])), self.classes, self.allowed)


def read_folder(folder: Path, classes: Sequence[str] | None = None, partial: bool = False) -> Labelled:
    """One folder a class, as torchvision's ImageFolder. `classes` fixes which folder is which label; unless `partial`
    all of them must be there (an empty folder says that there is no picture of a class).

    Raises: TaskError where the folder is missing, empty, lacks a class, or holds one that `classes` does not have.
    """
    if not folder.is_dir():
        raise TaskError(f"no folder {folder}")
    found = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    index = {name: i for i, name in enumerate(classes or found)}
    if unknown := [n for n in found if n not in index]:
        raise TaskError(f"{folder} has the class folder {unknown[0]!r}, which the training classes do not")
    if not partial and (absent := [n for n in index if n not in found]):
        # a score over the other classes would be another number
        raise TaskError(f"{folder} has no folder of class {absent[0]!r} ({len(absent)} of {len(index)} are missing)")
    # names alone are kept: ImageNet-21k has fourteen million
    names: list[str] = []
    labels: list[int] = []
    for name in found:
        paths = sorted(p for p in (folder / name).rglob("*") if p.suffix.lower() in SUFFIXES)
        names += [p.relative_to(folder).as_posix() for p in paths]
        labels += [index[name]] * len(paths)
    if not names:
        raise TaskError(f"{folder} has no pictures in class folders ({' '.join(SUFFIXES)})")
    return Labelled(names, np.array(labels, np.int64), lambda i: folder / names[i], tuple(index))


def read_parquet(paths: Sequence[Path], classes: Sequence[str] | None = None) -> Labelled:
    """Columns `image` (bytes, or Hugging Face's struct with bytes), `label`, and `filename` where there is one.

    Raises: TaskError for a torn file, and for a missing column, naming those that are there.
    """
    assert paths
    return _from_table(read_columns(paths, ("image", "label"), ("filename",)), classes)


def read_saved(folder: Path, classes: Sequence[str] | None = None) -> Labelled:
    """A folder written by `datasets`' `save_to_disk`: Arrow files and `dataset_info.json`. Needs pyarrow alone.

    Raises: TaskError where `state.json` or its files are missing, or a column is.
    """
    import pyarrow as pa

    state = folder / "state.json"
    if not state.is_file():
        raise TaskError(f"{folder} has no state.json: it is no folder saved by Hugging Face datasets")
    tables = []
    for entry in read_json(state)["_data_files"]:
        path = folder / entry["filename"]
        if not path.is_file():
            raise TaskError(f"{path} is missing")
        tables.append(pa.ipc.open_stream(pa.memory_map(str(path))).read_all())
    table = pa.concat_tables(tables)
    if absent := [c for c in ("image", "label") if c not in table.column_names]:
        raise TaskError(f"{folder} has no column {absent[0]!r}; it has: {', '.join(table.column_names)}")
    info = folder / "dataset_info.json"
    features = read_json(info).get("features", {}) if info.is_file() else {}
    return _from_table(table, features.get("label", {}).get("names") or classes)


def _from_table(table: Any, classes: Sequence[str] | None) -> Labelled:
    labels = table["label"].to_numpy().astype(np.int64)
    images = table["image"]
    names = table["filename"].to_pylist() if "filename" in table.column_names else [str(i) for i in range(len(table))]

    def read(i: int) -> bytes:
        value = images[i].as_py()
        return value["bytes"] if isinstance(value, Mapping) else value

    count = int(labels.max(initial=-1)) + 1
    return Labelled(names, labels, read, tuple(classes or map(str, range(count))))


TORCHVISION_FOLDERS = {
    "cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python", "pets": "oxford-iiit-pet",
    "flowers": "flowers-102", "food101": "food-101", "cars": "stanford_cars", "dtd": "dtd",
}  # fmt: skip


def read_torchvision(name: str, root: Path, split: str) -> Labelled:
    """CIFAR, Pets, Flowers, Food101, Cars, DTD in torchvision's layouts; `split` is train or test.

    Raises: TaskError where torchvision does not find its files.
    """
    if not (root / TORCHVISION_FOLDERS[name]).is_dir():
        raise TaskError(f"{name} is not under {root} (no folder {TORCHVISION_FOLDERS[name]})")
    from PIL import Image
    from torchvision import datasets  # seconds to import: a plan of missing data must not wait for it

    train = split == "train"
    parts: Mapping[str, Callable[[], list[Any]]] = {
        "cifar10": lambda: [datasets.CIFAR10(root, train)],
        "cifar100": lambda: [datasets.CIFAR100(root, train)],
        "pets": lambda: [datasets.OxfordIIITPet(root, "trainval" if train else "test")],
        "flowers": lambda: [datasets.Flowers102(root, s) for s in (("train", "val") if train else ("test",))],
        "food101": lambda: [datasets.Food101(root, "train" if train else "test")],
        "cars": lambda: [datasets.StanfordCars(root, "train" if train else "test")],
        "dtd": lambda: [datasets.DTD(root, s) for s in (("train", "val") if train else ("test",))],
    }
    try:
        found = parts[name]()
    except (RuntimeError, OSError) as error:
        raise TaskError(f"{name} is not under {root} ({str(error).splitlines()[0]})") from None
    labels = np.concatenate([np.asarray(_labels(d), np.int64) for d in found])
    starts = np.cumsum([0, *(len(d) for d in found)])

    def read(i: int) -> Any:
        part = int(np.searchsorted(starts, i, side="right")) - 1
        try:
            return found[part][i - int(starts[part])][0]
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise TaskError(f"{name} {split}/{i} cannot be decoded: {error}") from error

    classes = tuple(getattr(found[0], "classes", None) or map(str, range(int(labels.max()) + 1)))
    return Labelled([f"{split}/{i}" for i in range(len(labels))], labels, read, classes)


def _labels(dataset: Any) -> Any:
    for name in ("targets", "_labels"):
        if hasattr(dataset, name):
            return getattr(dataset, name)
    return [label for _, label in dataset._samples]


def read_sun397(root: Path, split: str) -> Labelled:
    """SUN397 by its first official partition (`Training_01.txt`, `Testing_01.txt` beside the pictures).

    Raises: TaskError naming the file that is missing.
    """
    folder = root / "SUN397"
    listing = folder / ("Training_01.txt" if split == "train" else "Testing_01.txt")
    names = folder / "ClassName.txt"
    for path in (names, listing):
        if not path.is_file():
            raise TaskError(f"no {path}")
    classes = names.read_text(encoding="utf-8").split()
    index = {name: i for i, name in enumerate(classes)}
    files = listing.read_text(encoding="utf-8").split()
    labels = np.array([index[f.rpartition("/")[0]] for f in files], np.int64)
    return Labelled(files, labels, lambda i: folder / files[i].lstrip("/"), tuple(classes))
