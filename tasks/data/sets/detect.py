"""What a folder or file of a user's own is: by its form, as the readers would take it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from tasks.data.cards import KINDS, read_card
from tasks.data.documents import stream_json
from tasks.data.errors import DataError, Missing, Wrong
from tasks.data.readers.files import pictures_under
from tasks.data.sets.boxed import boxed_set
from tasks.data.sets.captioned import LINES
from tasks.data.sets.masked import IMAGES, MASKS, masked_set
from tasks.data.sets.own import locate


def kinds_of(name: str, root: Path) -> tuple[str, ...]:
    """The kinds of labels that a path under the data root holds: classes, masks, captions, boxes.

    Raises: Missing where nothing is there, or nothing that is read; it says what is.

    Example: `kinds_of("pets/", Path("data")) == ("classes",)`
    """
    for card in (root / name, root / "sets" / f"{name}.yaml"):
        if card.suffix in (".yaml", ".yml") and card.is_file():
            return tuple(kind for kind in KINDS if getattr(read_card(card), kind) is not None)
    if "{split}" in name:
        return ("captions",)
    place = root / name.removeprefix("hf:")
    if place.is_file() and place.suffix.lower() in (".json", *LINES):
        if place.suffix == ".json" and _is_boxes(place):
            folder = Path(name).parent.as_posix()
            raise Wrong("holds the boxes of one split", path=place, advice=f"name its folder: {folder}")
        return ("captions",)
    if not place.exists():
        raise Missing("no such file or folder", path=place)
    if not place.is_dir():
        raise Wrong("is a file of no form that is read", path=place, advice=_instead_of_file(place))
    found = tuple(_of_folder(name, root))
    if not found:
        listed = sorted(p.name for p in place.iterdir() if not p.name.startswith("."))
        here = ", ".join(listed[:8]) + (", ..." if len(listed) > 8 else "") if listed else "nothing"
        raise Missing(f"is of no form that is read; it has: {here}", path=place, advice=_instead_of_folder(place, name))
    return found


def _instead_of_file(path: Path) -> str:
    if path.suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"):
        return "unpack it and name the folder"
    if path.suffix.lower() in (".parquet", ".arrow"):
        return f"name its folder, with a slash; files are called train*{path.suffix} and test*{path.suffix}"
    return "read are .json of boxes or captions, token files and CSV of captions, set cards (.yaml), and folders"


def _instead_of_folder(folder: Path, name: str) -> str:
    """The nearest form that is read."""
    inner = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    names = {p.name for p in inner}
    for path in [*sorted(folder.glob("annotations/captions_*.json")), *sorted(folder.glob("dataset*.json"))][:1]:
        called = re.sub("captions_(train|val)", "captions_{split}", path.relative_to(folder).as_posix())
        return f"captions are named by their file: {name.rstrip('/')}/{called}"
    if any(folder.glob("labels/*.txt")) or any(folder.glob("labels/*/*.txt")):
        return "YOLO's text labels are not read: write them as COCO's JSON, train.json and val.json"
    if any(folder.glob("Annotations/*.xml")):
        return "VOC's XML is not read as boxes: write it as COCO's JSON, train.json and val.json"
    if names & set(IMAGES) and names & set(MASKS):
        return "pictures and masks lie in folders of their split: images/train with annotations/train, and val likewise"
    for one in inner:
        with contextlib.suppress(Missing, Wrong):
            locate(one, "train")
            return f"the splits are one folder further down: {name.rstrip('/')}/{one.name}/"
    if any(p.suffix.lower() in (".csv", ".tsv", ".txt") for p in folder.iterdir()):
        return "a list of labels is read for captions alone; classes are folders (train/CLASS/) or columns of parquet"
    if inner and all(any(picture for _, picture in pictures_under(one)) for one in inner[:20]):
        return "class folders lie below their split: train/CLASS/ and test/CLASS/ (or val/CLASS/)"
    return (
        "read are: train/ and test/ of class folders or parquet, images/ and annotations/ of masks, train.json and "
        "val.json of boxes, a Karpathy .json of captions"
    )


def _of_folder(name: str, root: Path) -> Iterator[str]:
    masked = masked_set(name.rstrip("/"), root)
    if masked.own and any(map(masked.holds_masks, ("train", "val", "test"))):
        yield "masks"
        return
    boxed = boxed_set(name.rstrip("/"), root)
    if boxed.own and any(boxed.file(split).is_file() for split in ("train", "val")):
        yield "boxes"
        return
    for split in ("train", "test"):
        with contextlib.suppress(Missing):
            locate(root / name.removeprefix("hf:"), split)
            yield "classes"
            return


def _is_boxes(path: Path) -> bool:
    with contextlib.suppress(DataError):
        for key, _, values in stream_json(path):
            if key == "annotations" and values:
                return isinstance(values[0], dict) and "bbox" in values[0]
    return False
