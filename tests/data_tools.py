"""Shared by tests of data: cards of known sets with the sizes of tiny ones; folders and tables as people have them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tasks.data import cards


def sized(monkeypatch: Any, name: str, kind: str, counts: bool = False, **sizes: int | None) -> None:
    """Let the card of a known set have these pictures a split, `None` for any; and any number of classes."""
    card = cards.known_card(name)
    form = getattr(card, kind)
    splits = {
        split: own.model_copy(update={"pictures": sizes.get(split), "labels": None})
        for split, own in form.splits.items()
    }
    form = form.model_copy(update={"splits": splits, "class_count": form.class_count if counts else None})
    monkeypatch.setitem(cards._READ, name, card.model_copy(update={kind: form}))


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (8, 6), **options: Any) -> Path:
    """Write a picture of noise in the format of its suffix."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def small_pictures(root: Path, name: str = "small/set", count: int = 12, side: int = 32) -> Path:
    """A set of noise with a folder a class, train and test; gives `root` back."""
    for number in range(count):
        for split in ("train", "test"):
            picture(root / name / split / "abc"[number % 3] / f"{number}.png", number, (side, side))
    return root


def encoded(tmp: Path, seed: int) -> bytes:
    return picture(tmp / "one.png", seed).read_bytes()


def folders(root: Path, splits: tuple[str, ...] = ("train", "test"), suffix: str = ".png", each: int = 3) -> Path:
    """`own/SPLIT/{ant,bee}/i.png`; all pictures differ."""
    for s, split in enumerate(splits):
        for c, name in enumerate(("ant", "bee")):
            for i in range(each):
                picture(root / "own" / split / name / f"{i}{suffix}", 1000 * s + 100 * c + i)
    return root


def table(path: Path, labels: list, images: list | None = None, features: dict | None = None, **names: str) -> Path:
    """A parquet file; `names` renames the columns image and label."""
    images = images or [encoded(path.parent.parent, i) for i in range(len(labels))]
    columns = {names.get("image", "image"): images, names.get("label", "label"): labels}
    content = pa.table(columns)
    if features:
        content = content.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, path)
    return path


def saved(folder: Path, labels: list[int], names: list[str]) -> None:
    """What `save_to_disk` writes of one split."""
    folder.mkdir(parents=True)
    images = [{"bytes": encoded(folder.parent, i), "path": None} for i in range(len(labels))]
    content = pa.table({"image": images, "label": labels})
    with pa.OSFile(str(folder / "data.arrow"), "wb") as file, pa.ipc.new_stream(file, content.schema) as out:
        out.write_table(content)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {"label": {"names": names}}}))
