"""What a folder or file of a user's own is: by its form, as the readers would take it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tasks.data.cards import KINDS, read_card
from tasks.data.documents import stream_json
from tasks.data.errors import DataError, Missing
from tasks.data.sets.boxed import boxed_set
from tasks.data.sets.captioned import LINES
from tasks.data.sets.masked import masked_set
from tasks.data.sets.own import locate


def kinds_of(name: str, root: Path) -> tuple[str, ...]:
    """The kinds of labels that a path under the data root holds: classes, masks, captions, boxes.

    Raises: Missing where nothing is there, or nothing that is read; it says what is.

    Example: `kinds_of("pets/", Path("data")) == ("classes",)`
    """
    for card in (root / name, root / "sets" / f"{name}.yaml"):
        if card.suffix in (".yaml", ".yml") and card.is_file():
            return tuple(kind for kind in KINDS if getattr(read_card(card), kind) is not None)
    place = root / name.removeprefix("hf:")
    if place.is_file() and place.suffix.lower() in (".json", *LINES):
        return ("boxes",) if place.suffix == ".json" and _is_boxes(place) else ("captions",)
    if not place.exists():
        raise Missing("no such file or folder", path=place)
    found = tuple(_of_folder(name, root)) if place.is_dir() else ()
    if not found:
        listed = sorted(p.name for p in place.iterdir() if not p.name.startswith(".")) if place.is_dir() else []
        here = ", ".join(listed[:8]) + (", ..." if len(listed) > 8 else "") if listed else "nothing"
        forms = (
            "train/ and test/ of class folders or parquet, images/ and annotations/ of masks, train.json and val.json "
            "of boxes, a Karpathy .json of captions"
        )
        raise Missing(f"is of no form that is read; it has: {here}", path=place, advice=f"read are: {forms}")
    return found


def _of_folder(name: str, root: Path) -> Iterator[str]:
    masked = masked_set(name.rstrip("/"), root)
    if masked.own and any(masked._own_folders(split) for split in ("train", "val", "test")):
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
