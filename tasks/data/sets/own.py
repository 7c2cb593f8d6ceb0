"""Folders of a user's own: which part of them is which split, and in what form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tasks.data.errors import Missing

# what splits are called on disk, the first that is there; results are reported on `test`
CALLED = {
    "train": ("train", "training"),
    "test": ("test", "testing", "val", "validation", "valid", "dev", "eval"),
}  # fmt: skip


@dataclass(frozen=True)
class Located:
    """A split on disk: `folders` (one a class, in `paths[0]`), `saved` (by datasets, in `paths[0]`) or `parquet`."""

    layout: str
    paths: tuple[Path, ...]
    called: str


def locate(folder: Path, split: str) -> Located:
    """Where the labelled pictures of a split are in a folder of the user's own.

    Taken are `SPLIT/CLASS/*`, folders that `datasets` saved (`SPLIT/state.json`), and parquet as `SPLIT*.parquet`,
    `data/SPLIT-*.parquet`, `SPLIT/*.parquet` or `CONFIG/SPLIT/*.parquet`, as the Hub writes it; `val` and its other
    names stand for a `test` that is not there.

    Raises: Missing saying what the folder has instead, and the nearest form that is read.

    Example: `locate(Path("pets"), "test").called == "val"` where there is no `pets/test`
    """
    if not folder.is_dir():
        raise Missing("no such folder", path=folder)
    entries = {p.name.lower(): p for p in sorted(folder.iterdir()) if not p.name.startswith(".")}
    for name in CALLED.get(split, (split,)):
        place = entries.get(name)
        if place is not None and place.is_dir():
            if (place / "state.json").is_file():
                return Located("saved", (place,), name)
            if paths := tuple(sorted(place.glob("*.parquet"))):
                return Located("parquet", paths, name)
            return Located("folders", (place,), name)
        for pattern in (f"{name}*.parquet", f"data/{name}-*.parquet", f"data/{name}*.parquet", f"*/{name}/*.parquet"):
            if paths := tuple(sorted(folder.glob(pattern))):
                return Located("parquet", paths, name)
    raise Missing(f"has no split {split!r}", path=folder, advice=_instead(folder, list(entries), split))


def _instead(folder: Path, entries: list[str], split: str) -> str:
    if (folder / "state.json").is_file():
        return f"it is one split that datasets saved; save a DatasetDict with train and {split}"
    names = ", ".join(CALLED.get(split, (split,)))
    here = ", ".join(entries[:8]) + (", ..." if len(entries) > 8 else "") if entries else "nothing"
    return f"it has: {here}; a split is a folder of class folders or parquet files called {names}"
