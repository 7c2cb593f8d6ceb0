"""Labelled pictures: Tiny ImageNet, Stanford Cars, Imagewoof."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.prepare.downloads import Download, check_name
from benchmarks.prepare.packing import (
    chosen,
    counted,
    distinct,
    encoded,
    rgb,
    shrunk,
    shuffled,
    square,
    write_json,
    write_parquet,
)  # fmt: skip
from tasks.contract import TaskError

Say = Callable[[str], None]
Entry = tuple[Path, int]  # a file and its label
TINY_SIZES = {"train": 400, "val": 50}  # pictures a class
CARS_SIZES = {"test": 10, "train": 30}
WOOF_SIZES = {"train": 150, "test": 60}
# golden retriever (n02099601) is left out: the pack of Tiny ImageNet has it
WOOF_CLASSES = {
    "n02086240": "Shih-Tzu", "n02087394": "Rhodesian ridgeback", "n02088364": "beagle", "n02089973": "English foxhound",
    "n02093754": "Border terrier", "n02096294": "Australian terrier", "n02105641": "Old English sheepdog",
    "n02111889": "Samoyed", "n02115641": "dingo",
}  # fmt: skip


def tiny_imagenet(download: Download, out: Path, sizes: Mapping[str, int], say: Say) -> None:
    """Every second of the 200 classes; `sizes` are pictures a class, the rest is not kept. 64x64, WebP 65.

    Raises: TaskError for another layout, or a class with fewer pictures.
    """
    root = download.find("wnids.txt").parent
    wnids = sorted((root / "wnids.txt").read_text(encoding="utf-8").split())[::2]
    names = dict(
        line.split("\t", 1) for line in (root / "words.txt").read_text(encoding="utf-8").splitlines() if "\t" in line
    )
    listing = root / "val" / "val_annotations.txt"
    if not listing.is_file():
        raise TaskError(f"no {listing}: another layout than the official tiny-imagenet-200")
    index = {wnid: label for label, wnid in enumerate(wnids)}
    val = [line.split("\t")[:2] for line in listing.read_text(encoding="utf-8").splitlines() if line]
    held: dict[str, list[Path]] = {w: [] for w in wnids}
    for name, wnid in val:
        if wnid in held:
            held[wnid].append(root / "val" / "images" / check_name(name, str(listing)))
    entries: dict[str, list[Entry]] = {"train": [], "val": []}
    seen: set[bytes] = set()
    for wnid in wnids:
        entries["val"] += [(p, index[wnid]) for p in _some(held[wnid], sizes["val"], f"val class {wnid}")]
    distinct((p for p, _ in entries["val"]), Path.read_bytes, seen)
    for wnid in wnids:
        files = distinct(_pictures(root / "train" / wnid / "images"), Path.read_bytes, seen)
        entries["train"] += [(p, index[wnid]) for p in _some(files, sizes["train"], f"train class {wnid}")]
    entries["train"] = shuffled(entries["train"], lambda e: e[0].name)
    for split, rows in entries.items():
        _write(out / "pretrain", f"tinyimagenet100_{split}", rows, lambda image: image, 65, say)
    meta = {"name": "tinyimagenet100", "num_classes": len(wnids), "wnids": wnids}
    write_json(
        out / "pretrain" / "tinyimagenet100_meta.json", {**meta, "class_names": [names.get(w, w) for w in wnids]}
    )


def cars(download: Download, out: Path, sizes: Mapping[str, int], say: Say) -> None:
    """Every second of the 196 classes, out of the official training pictures; the shorter side at most 128 px, WebP 70.

    `sizes`: test pictures a class, and at most how many for training. Byte-identical repeats are dropped.

    Raises: TaskError for another layout, or a class with too few pictures.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    places = {name: download.find(name) for name in ("cars_train_annos.mat", "cars_meta.mat")}
    pictures = download.find("cars_train")
    try:
        found = loadmat(places["cars_train_annos.mat"], squeeze_me=True)["annotations"]
        labels = {str(a["fname"]): int(a["class"]) for a in found}
        classes = [str(n) for n in loadmat(places["cars_meta.mat"], squeeze_me=True)["class_names"]]
    except (MatReadError, ValueError, KeyError, TypeError, OSError, NotImplementedError) as error:
        raise TaskError(f"{places['cars_train_annos.mat']} is not the official car_devkit: {error!r}") from error
    kept = list(range(1, len(classes) + 1, 2))
    files: dict[int, list[Path]] = {c: [] for c in kept}
    for name, original in sorted(labels.items()):
        if original in files:
            files[original].append(pictures / check_name(name, "cars_train_annos.mat"))
    entries: dict[str, list[Entry]] = {"train": [], "test": []}
    seen: set[bytes] = set()
    for label, original in enumerate(kept):
        own = distinct(files[original], _bytes, seen)
        test = _some(own, sizes["test"], f"class {classes[original - 1]!r}", spare=1)
        rest = [p for p in own if p not in test]
        by_name = {p.name: p for p in rest}
        train = [by_name[n] for n in chosen(list(by_name), sizes["train"])]
        entries["test"] += [(p, label) for p in test]
        entries["train"] += [(p, label) for p in train]
    for split, rows in entries.items():
        mixed = shuffled(rows, lambda e: e[0].name)
        _write(out / "classification", f"cars98_{split}", mixed, lambda i: shrunk(i, short=128), 70, say)
    write_json(out / "classification" / "cars98_meta.json", {
        "name": "cars98", "num_classes": len(kept), "class_names": [classes[c - 1] for c in kept],
        "original_class_id": kept,
    })  # fmt: skip


def imagewoof(download: Download, out: Path, sizes: Mapping[str, int], say: Say) -> None:
    """Nine of the ten breeds, `sizes` pictures a breed (test out of its val), the middle square at 128x128, WebP 70.

    Raises: TaskError for another layout, or a breed with fewer pictures.
    """
    root = download.find(f"train/{min(WOOF_CLASSES)}").parent.parent
    for split, official in (("train", "train"), ("test", "val")):
        rows = [
            (path, label)
            for label, wnid in enumerate(WOOF_CLASSES)
            for path in _some(_pictures(root / official / wnid), sizes[split], f"{official} class {wnid}")
        ]
        mixed = shuffled(rows, lambda e: e[0].name)
        _write(out / "classification", f"imagewoof9_{split}", mixed, lambda i: square(i, 128), 70, say)
    write_json(out / "classification" / "imagewoof9_meta.json", {
        "name": "imagewoof9", "num_classes": len(WOOF_CLASSES), "class_names": list(WOOF_CLASSES.values()),
        "wnids": list(WOOF_CLASSES),
    })  # fmt: skip


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise TaskError(f"no class folder {folder}: the download is not whole")
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpeg", ".jpg", ".png"))


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise TaskError(f"no picture {path}: the download is not whole")
    return path.read_bytes()


def _some(files: list[Path], count: int, what: str, spare: int = 0) -> list[Path]:
    if len(files) < count + spare:
        raise TaskError(f"{what} has {len(files)} pictures, {count + spare} are needed: the download is not whole")
    by_name = {p.name: p for p in files}
    return [by_name[n] for n in chosen(list(by_name), count)]


def _write(
    folder: Path, stem: str, entries: list[Entry], change: Callable[[Image.Image], Image.Image], quality: int, say: Say
) -> None:
    import pyarrow as pa

    def rows() -> Iterable[dict[str, Any]]:
        for path, label in counted(entries, stem, say):
            yield {"image": encoded(change(rgb(path)), "WEBP", quality), "label": label, "filename": path.name}

    schema = pa.schema([("image", pa.binary()), ("label", pa.int32()), ("filename", pa.string())])
    write_parquet(folder, stem, rows(), schema)
