"""Data sets by name: where their files are, which splits they have, what is held out as minival, their recipe."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tasks.classification.imagenet import SOURCES, imagenet_missing, read_imagenet
from tasks.classification.readers import Labelled, read_folder, read_parquet, read_saved, read_sun397, read_torchvision
from tasks.contract import Recipe, TaskError
from tasks.data.formats import read_json
from tasks.data.scenes import scenes_folder

IMAGENET_SPLITS = ("val", "real", "v2", "a", "r", "sketch")


def _official(steps: int, warmup: int, lr: float) -> Recipe:
    """big_vision's transfer recipe: SGD with momentum, clip 1, cosine, batch 512, no decay, no mixup."""
    return Recipe(steps=steps, batch=512, lr=lr, optimizer="sgd", schedule="cosine", warmup=warmup, clip=1.0)


def _searched() -> Recipe:
    """The same where no best setting is published: steps and learning rate compete on minival."""
    lengths, rates = ((500, 100), (2500, 200)), (0.003, 0.01, 0.03)
    tries = tuple({"steps": s, "warmup": w, "lr": lr} for s, w in lengths for lr in rates)
    return Recipe(steps=500, batch=512, lr=0.01, warmup=100, clip=1.0, candidates=tries)


@dataclass(frozen=True)
class DataSpec:
    """`kind`: imagenet, torchvision, sun397, parquet, saved or folder. `held`: the part of train that is minival.

    `crop`: training crop of the published recipe, inception or resmall.
    """

    kind: str
    files: str = ""
    held: float = 0.1
    recipe: Recipe = field(default_factory=_searched)
    crop: str = "inception"
    image_size: int = 240
    tests: Mapping[str, int | None] = field(default_factory=lambda: {"test": None})
    source: str = ""


def _mini(name: str, tests: int, steps: int) -> DataSpec:
    # chosen on minival of cars98 with flexivit_nano at grid 8: 0.1 before 0.03, 0.3 and AdamW at 3e-4, 1e-3, 3e-3
    recipe = Recipe(steps=steps, batch=32, lr=0.1, warmup=20, clip=1.0)
    source = f"run_all.py prepare {name} --from PATH"
    files = f"classification/{name}_{{split}}_*.parquet"
    return DataSpec("parquet", files, 0.1, recipe, "inception", 120, {"test": tests}, source)


DATA: dict[str, DataSpec] = {
    "imagenet": DataSpec(
        "imagenet", "imagenet", 0.01, _official(20_000, 500, 0.03), tests=dict.fromkeys(IMAGENET_SPLITS),
        source=SOURCES["train"],
    ),
    "imagenet21k": DataSpec(
        "folder", "imagenet21k", 51_200 / 14_197_122, image_size=240, tests={},
        source="https://image-net.org (autumn 2011: train/WNID/*.JPEG under imagenet21k/)",
    ),
    "cifar10": DataSpec(
        "torchvision", "cifar10", 0.02, _official(10_000, 500, 0.003), "resmall", tests={"test": 10_000},
        source="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    ),
    "cifar100": DataSpec(
        "torchvision", "cifar100", 0.02, _official(10_000, 500, 0.01), "resmall", tests={"test": 10_000},
        source="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    ),
    "pets": DataSpec(
        "torchvision", "pets", 0.1, _official(500, 100, 0.003), tests={"test": 3669},
        source="https://www.robots.ox.ac.uk/~vgg/data/pets",
    ),
    "flowers": DataSpec(
        "torchvision", "flowers", 0.1, _official(500, 100, 0.003), tests={"test": 6149},
        source="https://www.robots.ox.ac.uk/~vgg/data/flowers/102",
    ),
    "food101": DataSpec(
        "torchvision", "food101", tests={"test": 25_250}, source="http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz"
    ),
    "sun397": DataSpec(
        "sun397", "SUN397", tests={"test": 19_850},
        source="https://vision.princeton.edu/projects/2010/SUN (with Partitions)",
    ),
    "cars": DataSpec(
        "torchvision", "cars", tests={"test": 8041},
        source="https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
    ),
    "dtd": DataSpec("torchvision", "dtd", tests={"test": 1880}, source="https://www.robots.ox.ac.uk/~vgg/data/dtd"),
    "scenes": DataSpec(
        "scenes", "", 0.1, Recipe(steps=200, batch=16, lr=0.003, optimizer="adamw", warmup=10), "resmall", 120,
        {"test": 240}, source="drawn on the first run",
    ),
    "tinyimagenet100": DataSpec(
        "parquet", "pretrain/tinyimagenet100_{split}_*.parquet", 0.01, image_size=120, tests={"val": 5000},
        source="run_all.py prepare tinyimagenet100 --from PATH",
    ),
    "cars98": _mini("cars98", 980, 300),
    "imagewoof9": _mini("imagewoof9", 540, 150),
}  # fmt: skip


def data_spec(name: str) -> DataSpec:
    """The set behind a name; `hf:FOLDER` was saved by Hugging Face datasets, `some/folder/` has train/ and test/ (or
    val/) with a folder a class or parquet files `train*.parquet`.

    Raises: TaskError naming the nearest known sets.
    """
    if name in DATA:
        return DATA[name]
    if name.startswith("hf:"):
        return DataSpec("saved", name.removeprefix("hf:"), source="your own folder")
    if "/" in name:
        return DataSpec("folder", name, source="your own folder")
    near = difflib.get_close_matches(name, DATA, 3, 0.4) or sorted(DATA)
    raise TaskError(f"no data {name!r}; nearest: {', '.join(near)}; also hf:FOLDER, or a folder with a slash in it")


def missing(root: Path, name: str, splits: tuple[str, ...]) -> list[str]:
    """What of the splits is not there; reads no pictures."""
    spec = data_spec(name)
    if spec.kind == "imagenet":
        return imagenet_missing(root, splits)
    if spec.kind == "scenes":  # drawn when it is needed, not when a plan asks
        return []
    try:
        for split in dict.fromkeys("train" if s == "minival" else s for s in splits):
            _read(root, spec, split)
    except TaskError as error:
        text = str(error)
        return [text if "get it from" in text else f"{text}; get it from {spec.source}"]
    return []


def load(root: Path, name: str, split: str, held: float | None = None) -> Labelled:
    """A split. `train` is without `minival`: the names with the smallest hashes, whatever the seed.

    `held`: the part of train that is minival, where it is not the set's own.

    Raises: TaskError for missing files, a split that does not exist, or one of another size than it must have.

    Example: `len(load(Path("data"), "cars98", "minival")) == 286`
    """
    spec = data_spec(name)
    known = ("train", "minival", *spec.tests)
    if split not in known and spec.kind not in ("folder", "saved"):
        raise TaskError(f"{name} has no split {split!r}; it has: {', '.join(known)}")
    if split in ("train", "minival"):
        whole = _read(root, spec, "train")
        aside = held_out(whole, spec.held if held is None else held)
        return whole.subset(np.flatnonzero(aside if split == "minival" else ~aside))
    found = _read(root, spec, split)
    expected = spec.tests.get(split)
    if expected is not None and len(found) != expected:
        raise TaskError(f"split {split!r} of {name} has {len(found)} images under {root}, it must have {expected}")
    return found


def held_out(whole: Labelled, part: float) -> np.ndarray:
    """bool [N]: which pictures of train are minival. At least one, where there are two and `part` is not 0."""
    hashes = np.array([int.from_bytes(hashlib.sha256(n.encode()).digest()[:7], "big") for n in whole.names])
    count = max(1, round(len(hashes) * part)) if len(hashes) > 1 and part else 0
    aside = np.zeros(len(hashes), bool)
    aside[np.argsort(hashes, kind="stable")[:count]] = True
    return aside


def _read(root: Path, spec: DataSpec, split: str) -> Labelled:
    if spec.kind == "imagenet":
        return read_imagenet(root, split)
    if spec.kind == "torchvision":
        return read_torchvision(spec.files, root, split)
    if spec.kind == "sun397":
        return read_sun397(root, split)
    if spec.kind == "parquet":
        pattern = spec.files.format(split=split)
        paths = sorted(root.glob(pattern))
        if not paths:
            raise TaskError(f"no {pattern} under {root}; get it from {spec.source}")
        return read_parquet(paths, _names(root, spec))
    folder = scenes_folder(root) / "classification" if spec.kind == "scenes" else root / spec.files
    place = folder / split
    if spec.kind == "saved":
        return read_saved(place if place.is_dir() else folder)
    if paths := sorted(folder.glob(f"{split}*.parquet")):
        return read_parquet(paths)
    train = folder / "train"
    classes = sorted(p.name for p in train.iterdir() if p.is_dir()) if split != "train" and train.is_dir() else None
    return read_folder(place, classes)


def _names(root: Path, spec: DataSpec) -> list[str] | None:
    """Class names of the mini packs: `*_meta.json` beside the files."""
    path = root / (spec.files.split("_{")[0] + "_meta.json")
    if not path.is_file():
        return None
    found = read_json(path)
    names = next((found[k] for k in ("classes", "class_names", "names") if k in found), None)
    return [str(n["name"] if isinstance(n, dict) else n) for n in names] if isinstance(names, list) else None
