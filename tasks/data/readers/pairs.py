"""Pictures and label maps paired by their names, whatever their types of file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tasks.data.errors import DataError, Missing, Wrong, nearest


def _key(name: str, suffix: str) -> str | None:
    stem = name.rpartition(".")[0]
    return stem.removesuffix(suffix) if stem.endswith(suffix) else None


def by_key(names: Sequence[str], suffixes: Sequence[str], folder: Path) -> dict[str, str]:
    """Name by name without suffix and type of file; those with another suffix are none.

    Raises: Wrong for two files of one name.
    """
    found: dict[str, str] = {}
    for name in names:
        for suffix in suffixes:
            key = _key(name, suffix)
            if key is None:
                continue
            if key in found:
                raise Wrong(f"has both {found[key]} and {name}", path=folder)
            found[key] = name
            break
    return found


def choose_masks(
    names: Sequence[str], suffixes: Sequence[str], wanted: Iterable[str], folder: Path
) -> tuple[dict[str, str], str]:
    """Masks by key, of the first suffix that has one for every picture wanted; else of the one that has most."""
    best: tuple[dict[str, str], str] = {}, suffixes[0]
    needed = set(wanted)
    for suffix in suffixes:
        found = by_key(names, [suffix], folder)
        if needed <= found.keys():
            return found, suffix
        if len(needed & found.keys()) > len(needed & best[0].keys()):
            best = found, suffix
    return best


def no_mask(where: tuple[Path, Path], image: str, key: str, masks: Sequence[str], advice: str) -> DataError:
    stem = key.rpartition("/")[2]
    like = [m for m in masks if m.rpartition("/")[2].startswith(stem)] or nearest(f"{stem}.png", masks, 1)
    if like:
        other = like[0].rpartition("/")[2].rpartition(".")[0]
        extra = other.removeprefix(stem) if other.startswith(stem) else ""
        advice = f"nearest: {like[0]}" + (f"; the option mask_suffix: {extra} pairs them" if extra else "")
    return Missing(f"has no label map of {where[0] / image}", path=where[1], advice=advice)
