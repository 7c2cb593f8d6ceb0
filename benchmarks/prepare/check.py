"""Is the data at hand, whole and right? Known sets, cards and folders of a user's own, looked at as a run would."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.prepare.packs import PACKS
from tasks import build_task
from tasks.contract import Task, TaskError
from tasks.data.boxes.protocols import Protocol
from tasks.data.cards import known_cards
from tasks.data.checks.inspection import inspect
from tasks.data.errors import DataError, Missing, Wrong, nearest
from tasks.data.pictures import read_rgb
from tasks.data.sets.detect import kinds_of
from tasks.data.splits import Boxed, Captioned, Labelled, Masked, Split

TASKS = {
    "classes": "classification", "masks": "segmentation", "captions": "retrieval", "boxes": "detection",
    "landmarks": "landmark_retrieval",
}  # fmt: skip

RULES = {Protocol.lvis: "LVIS' rules", Protocol.coco: "COCO's rules"}


@dataclass
class Checked:
    """What was found of a set. `state`: ok, missing (parts of it, see `problems`) or wrong (there, not as it must be).

    `first` and `last`: label or caption of the first and last picture of a split; `sample`: one decoded picture;
    `fingerprints`: the content of each split; `notes`: what a person should know.
    """

    name: str
    task: str
    state: str = "ok"
    splits: dict[str, int] = field(default_factory=dict)
    classes: int | None = None
    first: str = ""
    last: str = ""
    sample: str = ""
    fingerprints: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    advice: str = ""
    seconds: float = 0.0

    def lines(self) -> list[str]:
        """One line for a whole set; for others what is the matter and what to do."""
        head = f"{self.state:8}{self.task}/{self.name}"
        notes = [f"        note: {note}" for note in self.notes]
        if self.state != "ok":
            return [head, *(f"        {text}" for text in [*self.problems, self.advice] if text), *notes]
        counts = ", ".join(f"{split} {count:,}" for split, count in self.splits.items())
        classes = f"{self.classes:,} classes, " if self.classes is not None else ""
        content = ", ".join(f"{split} {text}" for split, text in self.fingerprints.items())
        labels = f"{self.first!r} to {self.last!r}"
        line = f"{head}: {counts}; {classes}{labels}; {self.sample}; content: {content} ({self.seconds:.1f} s)"
        return [line, *notes]


def known_sets() -> dict[tuple[str, str], str]:
    """(task, set) -> the pack's name where there is one to prepare. Drawn sets are not among them."""
    cards = [card for card in known_cards().values() if not card.drawn]
    return {(task, card.name): card.prepare for kind, task in TASKS.items() for card in cards if getattr(card, kind)}


def check_sets(names: list[str], root: Path) -> Iterator[Checked]:
    """Look at the sets of these names, at all known ones where there is none.

    A name is that of a known set, of a card (`sets/NAME.yaml` under the data root, or a card's path), or the path of a
    folder or file of a user's own, which is looked at by the task of its form.

    Raises: TaskError for an unknown name, naming the nearest.

    Example: `[c.state for c in check_sets(["cars98", "my/folder/"], Path("data"))]`
    """
    known = known_sets()
    wanted = [(name, _asked(name, root, known)) for name in names] or [(name, [task]) for task, name in known]
    for name, tasks in wanted:
        for task in tasks:
            yield _checked(task, name, known.get((task, name), ""), root)


def _asked(name: str, root: Path, known: dict[tuple[str, str], str]) -> list[str]:
    """The tasks that a name is data of."""
    tasks = [task for task, own in known if own == name]
    if tasks or name == "scenes":
        return tasks or [TASKS[kind] for kind in ("classes", "masks", "captions", "boxes")]
    try:
        return [TASKS[kind] for kind in kinds_of(name, root)]
    except (Missing, Wrong) as error:
        if (root / name).exists() or error.advice:
            raise
        every = sorted({n for _, n in known})
        near = nearest(name, every) or every
        raise TaskError(f"no data {name!r}: {error}; nearest: {', '.join(near)}") from None


def _checked(task: str, name: str, pack: str, root: Path) -> Checked:
    if task == TASKS["classes"] and "/" not in name and (root / name).is_dir() and (task, name) not in known_sets():
        name = f"{name}/"  # how a suite names it
    checked, started = Checked(name, task), time.perf_counter()
    try:
        built = build_task(task, root, {"data": name})
        splits = _reported(built)
        # of the data alone: a task may lack other things, such as weights of its text tower
        findings = inspect(built.data, built.reads(splits))  # type: ignore[attr-defined]
        errors = findings.errors
        if not errors and hasattr(built, "data"):
            _describe(checked, built, splits)
        checked.fingerprints, checked.notes = findings.fingerprints, findings.notes
    except (DataError, TaskError) as error:
        errors = [error if isinstance(error, DataError) else Wrong(str(error))]
    checked.problems = list(dict.fromkeys(map(str, errors)))
    if errors:
        checked.state = "missing" if all(isinstance(error, Missing) for error in errors) else "wrong"
        checked.advice = _advice(checked, pack)
    checked.seconds = round(time.perf_counter() - started, 2)
    return checked


def _advice(checked: Checked, pack: str) -> str:
    if pack:
        made = PACKS[pack]
        again = "remove what is named, then " if checked.state == "wrong" else ""
        return f"{again}download {made.source}; {made.needs}; then {made.command}"
    again = f"then: run_all.py check data {checked.name}"
    return f"remove or mend what is named, {again}" if checked.state == "wrong" else f"put it there, {again}"


def _reported(task: Task) -> tuple[str, ...]:
    """The splits that results are reported on."""
    usual = getattr(getattr(task, "data", None), "usual", tuple(task.card.splits))
    return tuple(s for s in usual if s not in ("train", "minival"))


def _describe(checked: Checked, task: Any, reported: tuple[str, ...]) -> None:
    """Counts, labels and one decoded picture."""
    data = task.data
    for split in [s for s in data.splits if s in ("train", "minival") or s in reported]:
        checked.splits[split] = len(data.load(split))
    shown: Split = data.whole(next(iter(reported), "train"))
    if isinstance(shown, Captioned):
        checked.first, checked.last = shown.captions[0][0], shown.captions[-1][-1]
    elif isinstance(shown, Labelled):
        train: Labelled = data.whole("train") if "train" in data.splits else shown
        checked.classes = len(train.classes)
        checked.first, checked.last = (train.classes[int(np.ravel(train.labels[i])[0])] for i in (0, -1))
    else:
        names = shown.labels.names if isinstance(shown, Boxed) else shown.meaning.names
        checked.classes, checked.first, checked.last = len(names), names[0], names[-1]
    checked.sample = _sample(shown)
    if isinstance(shown, Boxed):
        checked.sample += f", scored by {RULES[data.rules]}"


def _sample(split: Split) -> str:
    content = split.pictures.read(0)
    pixels = content if isinstance(content, np.ndarray) else read_rgb(content, split.pictures.where(0))
    if int(pixels.max()) == int(pixels.min()):
        raise Wrong(f"the first picture is one grey, {int(pixels.max())}: not a photograph",
                    place=split.pictures.where(0))  # fmt: skip
    text = f"a picture of {pixels.shape[1]}x{pixels.shape[0]} px"
    if isinstance(split, Boxed):
        return f"{text}, {len(split.labels.box):,} boxes"
    if isinstance(split, Masked):
        content = split.masks.read(0)
        assert isinstance(content, bytes)
        there = np.unique(split.meaning.classes(content, split.masks.where(0)))
        return f"{text} with {', '.join(split.meaning.names[i] for i in there if i < len(split.meaning.names))}"
    return text
