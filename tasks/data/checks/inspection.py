"""A look at every picture and label before training: what would fail a run, what would make its numbers wrong."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from backbones.weights.download import cache_folder
from tasks.data.checks.fingerprints import picture_hashes
from tasks.data.checks.progress import tracked
from tasks.data.checks.remembered import recall, remember
from tasks.data.errors import DataError, Wrong, shown
from tasks.data.pictures import look_at_picture
from tasks.data.readers.label_maps import UPRIGHT, check_sizes, read_label_map
from tasks.data.splits import Boxed, Labelled, Masked, Split

FORM = 2  # raise it when a look finds more than before
NAMED = 20  # faults of one kind that are kept by name
BEYOND = 0.1  # share of boxes that reach over an edge from which they are doubted


class DataSet(Protocol):
    """What `labelled_set`, `captioned_set`, `masked_set` and `boxed_set` give."""

    @property
    def splits(self) -> tuple[str, ...]: ...
    def problems(self, splits: tuple[str, ...]) -> list[DataError]: ...
    def whole(self, split: str) -> Split: ...


@dataclass
class Findings:
    """What a look at data found.

    `problems`: what a run would fail by, or be wrong by. `broken`: pictures that cannot be decoded, which a run may be
    told to pass over. `notes`: what a person should know. `splits`: pictures that were looked at, and fingerprints.
    """

    problems: list[DataError] = field(default_factory=list)
    broken: list[DataError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)

    @property
    def errors(self) -> list[DataError]:
        """All that keeps a run from starting."""
        return [*self.problems, *self.broken]


def inspect(data: DataSet, splits: Sequence[str]) -> Findings:
    """Look at the splits of a set, `minival` as a part of train; what was looked at before is remembered by content.

    Every picture's header and end, and of splits whose fingerprint is of a sample every hundredth's; every mask; sizes
    of pictures against those of labels; classes that no mask holds; pictures that splits share.

    Example: `inspect(labelled_set("cars98", "data"), ("train", "test")).errors == []`
    """
    wanted = tuple(dict.fromkeys("train" if s == "minival" else s for s in splits))
    findings = Findings(problems=data.problems(wanted))
    card = getattr(data, "card", None)
    if findings.problems or (card is not None and card.drawn):
        return findings
    opened = {}
    for name in wanted:
        try:
            opened[name] = split = data.whole(name)
            findings.fingerprints[name] = split.fingerprint
            findings.counts[name] = len(split)
            found = _remembered(split, name)
        except DataError as error:
            findings.problems.append(error)
            continue
        findings.notes += [*split.notes, *found["notes"]]
        findings.problems += [Wrong(text) for text in found["problems"]]
        findings.broken += [Wrong(text) for text in found["broken"]]
        if name == "train" and isinstance(split, Masked):
            findings.problems += _absent_classes(split, found["values"])
        if name == "train" and isinstance(split, Labelled):
            findings.notes += _empty_classes(split)
    if not findings.problems and "train" in opened:
        findings.notes += [note for name in opened if name != "train" for note in _unseen(opened, name)]
        findings.notes += [note for name in opened if name != "train" for note in _shared(opened, name)]
    return findings


def _remembered(split: Split, name: str) -> dict[str, Any]:
    key = hashlib.sha256(json.dumps([FORM, type(split).__name__, split.fingerprint]).encode()).hexdigest()[:32]
    place = cache_folder() / "checks" / f"{key}.json"
    found = recall(place)
    if found is None:
        found = _look(split, name)
        remember(place, found)
    return found


@dataclass
class _Look:
    """What is found of one split so far; of each kind of fault the first are named and all are counted."""

    split: Split
    faults: dict[str, list[str]] = field(default_factory=lambda: {"broken": [], "problems": []})
    counts: dict[str, int] = field(default_factory=lambda: {"broken": 0, "problems": 0, "turned": 0})
    values: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))

    def fault(self, kind: str, error: DataError) -> None:
        self.counts[kind] += 1
        if len(self.faults[kind]) < NAMED:
            self.faults[kind].append(str(error))


def _look(split: Split, name: str) -> dict[str, Any]:
    look = _Look(split)
    every = range(len(split))
    if "(" in split.fingerprint and not isinstance(split, Masked | Boxed):  # a sample: sizes are needed of no picture
        every = np.flatnonzero(picture_hashes(split.pictures).read)  # type: ignore[assignment]
    for i in tracked(every, f"looking at {name}"):
        size = _look_at_picture(look, int(i))
        if size is not None and isinstance(split, Boxed):
            _look_at_size(look, split, int(i), size)
        if size is not None and isinstance(split, Masked):
            _look_at_mask(look, split, int(i), size)
    return {
        "broken": look.faults["broken"] + _more(look, "broken"), "problems": look.faults["problems"],
        "notes": list(_notes(look)), "values": np.flatnonzero(look.values).tolist(),
    }  # fmt: skip


def _look_at_picture(look: _Look, i: int) -> tuple[int, int] | None:
    """(width, height), None where there is no picture to decode."""
    pictures = look.split.pictures
    try:
        content = pictures.read(i)
        if isinstance(content, np.ndarray):
            return content.shape[1], content.shape[0]
        width, height, turned = look_at_picture(content, pictures.where(i))
    except DataError as error:
        look.fault("broken", error)
        return None
    look.counts["turned"] += turned
    return width, height


def _look_at_size(look: _Look, split: Boxed, i: int, size: tuple[int, int]) -> None:
    told = tuple(map(int, split.labels.sizes[i]))
    if size != told:
        said = f"is {size[0]}x{size[1]} px, its labels are for {told[0]}x{told[1]}"
        look.fault("problems", Wrong(said, place=split.pictures.where(i)))


def _look_at_mask(look: _Look, split: Masked, i: int, size: tuple[int, int]) -> None:
    place = split.masks.where(i)
    try:
        content = split.masks.read(i)
        assert isinstance(content, bytes), place
        label = split.meaning.classes(content, place)
        check_sizes(size[::-1], label.shape, split.pictures.where(i), place, UPRIGHT)
        # values as stored tell a user what to map; of colours the classes are all there is
        values = label if split.meaning.palette else read_label_map(content, place)
        look.values += np.bincount(values.reshape(-1), minlength=256)
    except DataError as error:
        look.fault("problems", error)


def _more(look: _Look, kind: str) -> list[str]:
    more = look.counts[kind] - len(look.faults[kind])
    return [f"and {more:,} pictures more cannot be decoded"] if more else []


def _notes(look: _Look) -> Iterator[str]:
    split, turned = look.split, look.counts["turned"]
    if turned:
        yield f"{turned:,} of {len(split):,} pictures are turned by EXIF, which is not followed: stored pixels are read"
    if isinstance(split, Boxed) and len(split.labels.box):
        own = split.labels
        size = own.sizes[own.image]
        over = int((own.box[:, :2] + own.box[:, 2:] > size + 1).any(1).sum())
        if over > BEYOND * len(own.box):
            yield (
                f"{own.path}: {over:,} of {len(own.box):,} boxes reach beyond their picture: bbox is x, y, width, "
                "height, not two corners"
            )


def _absent_classes(split: Masked, stored: Sequence[int]) -> list[DataError]:
    """A class that no training mask holds cannot be learnt, and hides masks whose values mean something else."""
    meaning = split.meaning
    present = set(stored) if meaning.palette else set(meaning.table()[list(stored)].tolist())
    absent = [name for i, name in enumerate(meaning.names) if i not in present]
    if not absent:
        return []
    shown = ", ".join(map(str, stored[:12])) + (", ..." if len(stored) > 12 else "")
    advice = "`values` in meta.json says which value is which class"
    if meaning.reduce_zero:
        advice = "with reduce_zero_label the value 0 is ignored and 1 is the first class"
    names = f"{absent[0]!r}" + (f" and {len(absent) - 1} more" if len(absent) > 1 else "")
    said = f"class {names} of {len(meaning.names)} is in no training mask; the masks hold the values {shown}"
    return [Wrong(said, place=str(Path(split.masks.where(0)).parent), advice=advice)]


def _empty_classes(split: Labelled) -> list[str]:
    there = np.bincount(split.labels[split.labels >= 0], minlength=len(split.classes))
    empty = [name for name, count in zip(split.classes, there, strict=False) if not count]
    if not empty:
        return []
    return [f"{len(empty)} of {len(split.classes)} classes have no training picture, the first is {empty[0]!r}"]


def _unseen(opened: dict[str, Split], name: str) -> Iterator[str]:
    """Categories of boxes that train does not name."""
    train, other = opened["train"], opened[name]
    if isinstance(train, Boxed) and isinstance(other, Boxed):
        known = set(train.labels.names)
        if unseen := [told for told in other.labels.names if told not in known]:
            of = len(other.labels.names)
            yield f"{len(unseen):,} of {of:,} categories of {name} are none of train's, the first is {shown(unseen[0])}"


def _shared(opened: dict[str, Split], name: str) -> Iterator[str]:
    """Pictures of a split that train has too, byte for byte."""
    train, other = (picture_hashes(opened[s].pictures) for s in ("train", name))
    if not (train.whole and other.whole):
        return
    first = {content.tobytes(): i for i, content in enumerate(train.of)}
    again = [i for i, content in enumerate(other.of) if content.tobytes() in first]
    if again:
        twin = first[other.of[again[0]].tobytes()]
        yield (
            f"{len(again):,} of {len(other.of):,} pictures of {name} are in train too, byte for byte; the first is "
            f"{opened[name].names[again[0]]}, in train {opened['train'].names[twin]}"
        )
