"""Sets in layouts of their own: those that torchvision reads, and SUN397."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tasks.data.errors import Missing, Wrong, as_one_line
from tasks.data.readers.files import pictures_in, read_text
from tasks.data.splits import Labelled

CIFAR: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "cifar10": {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
    "cifar100": {"train": ("train",), "test": ("test",)},
}  # fmt: skip


@dataclass(frozen=True)
class Arrays:
    """Pictures that a set stores as pixels: uint8 [N, h, w, 3]."""

    pixels: np.ndarray
    containers: tuple[str, ...]
    single: ClassVar[bool] = False

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, i: int) -> np.ndarray:
        return self.pixels[i]

    def where(self, i: int) -> str:
        return f"{self.containers[0]}: picture {i}"

    def files(self) -> Sequence[str]:
        return self.containers

    def open(self) -> None:
        pass


def read_torchvision(name: str, root: Path, folder: str, split: str, advice: str = "") -> Labelled:
    """CIFAR, Pets, Flowers, Food101, Cars, DTD in torchvision's layouts; `split` is train or test.

    Raises: Missing where torchvision does not find its files. Wrong where it cannot read them.

    Example: `len(read_torchvision("cifar10", Path("data"), "cifar-10-batches-py", "test")) == 10_000`
    """
    if not (root / folder).is_dir():
        raise Missing("no such folder", path=root / folder, advice=advice)
    from torchvision import datasets  # seconds to import: a plan of missing data must not wait for it

    train = split == "train"
    halves = ("train", "val") if train else ("test",)
    parts: Mapping[str, Callable[[], list[Any]]] = {
        "cifar10": lambda: [datasets.CIFAR10(root, train)],
        "cifar100": lambda: [datasets.CIFAR100(root, train)],
        "pets": lambda: [datasets.OxfordIIITPet(root, "trainval" if train else "test")],
        "flowers": lambda: [datasets.Flowers102(root, split)],
        "food101": lambda: [datasets.Food101(root, "train" if train else "test")],
        "cars": lambda: [datasets.StanfordCars(root, "train" if train else "test")],
        "dtd": lambda: [datasets.DTD(root, s) for s in halves],
    }
    try:
        opened = parts[name]()
        labels = np.concatenate([np.asarray(_labels(d), np.int64) for d in opened])
        pixels = [d.data for d in opened] if name in CIFAR else None
        paths = [] if pixels else [Path(p).relative_to(root / folder).as_posix() for d in opened for p in _paths(d)]
        classes = tuple(getattr(opened[0], "classes", None) or map(str, range(int(labels.max()) + 1)))
    except RuntimeError as error:
        raise Missing(_first(error), path=root / folder, advice=advice) from None
    except FileNotFoundError as error:
        raise Missing("no such file", path=error.filename or root / folder, advice=advice) from None
    except Exception as error:  # lists and MATLAB files that are torn raise what they like
        raise Wrong(f"cannot be read: {type(error).__name__}: {_first(error)}", path=root / folder) from error
    names = [f"{split}/{i}" for i in range(len(labels))]
    if pixels:
        containers = tuple(str(root / folder / part) for part in CIFAR[name][split])
        return Labelled(names, Arrays(np.concatenate(pixels), containers), labels=labels, classes=classes)
    return Labelled(names, pictures_in(root / folder, paths, advice=advice), labels=labels, classes=classes)


def _paths(dataset: Any) -> list[Any]:
    for name in ("_images", "_image_files", "_samples"):
        if hasattr(dataset, name):
            return [one[0] if isinstance(one, tuple) else one for one in getattr(dataset, name)]
    raise AttributeError(f"{type(dataset).__name__} keeps no paths")


def _labels(dataset: Any) -> Any:
    for name in ("targets", "_labels"):
        if hasattr(dataset, name):
            return getattr(dataset, name)
    return [label for _, label in dataset._samples]


def _first(error: Exception) -> str:
    return as_one_line((str(error).splitlines() or ["no message"])[0])


def read_sun397(folder: Path, split: str, advice: str = "") -> Labelled:
    """SUN397 by its first official partition (`Training_01.txt`, `Testing_01.txt` beside the pictures).

    Raises: Missing for a list or pictures that are not there. Wrong for a line of another form.
    """
    listing = folder / ("Training_01.txt" if split == "train" else "Testing_01.txt")
    for path in (folder / "ClassName.txt", listing):
        if not path.is_file():
            raise Missing("no such file", path=path, advice=advice)
    classes = read_text(folder / "ClassName.txt").split()
    index = {name: i for i, name in enumerate(classes)}
    names = read_text(listing).split()
    labels = []
    for number, name in enumerate(names, 1):
        label = index.get(name.rpartition("/")[0])
        if label is None:
            raise Wrong(f"{name!r} is in no folder of ClassName.txt", path=listing, place=f"line {number}")
        labels.append(label)
    pictures = pictures_in(folder, [name.lstrip("/") for name in names], advice=advice, path=listing)
    return Labelled(names, pictures, labels=np.array(labels, np.int64), classes=tuple(classes))
