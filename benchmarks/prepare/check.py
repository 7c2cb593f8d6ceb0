"""Is the data at hand, whole and readable? Every known set: counts, classes, labels, a decoded picture, fingerprint."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.engine.plan import missing_of
from benchmarks.prepare.packs import PACKS
from tasks import build_task
from tasks.contract import Task, TaskError
from tasks.data.cards import known_cards


@dataclass
class Checked:
    """What was found of a set. `state`: ok, missing (parts of it, see `problems`) or wrong (there, but not readable).

    `first` and `last`: label or caption of the first and last picture of a split; `sample`: one decoded picture.
    """

    name: str
    task: str
    state: str = "ok"
    splits: dict[str, int] = field(default_factory=dict)
    classes: int | None = None
    first: str = ""
    last: str = ""
    sample: str = ""
    fingerprint: str = ""
    problems: list[str] = field(default_factory=list)
    advice: str = ""
    seconds: float = 0.0

    def lines(self) -> list[str]:
        """One line for a whole set; for others what is the matter and what to do."""
        head = f"{self.state:8}{self.task}/{self.name}"
        if self.state == "ok":
            counts = ", ".join(f"{split} {count}" for split, count in self.splits.items())
            classes = f"{self.classes} classes, " if self.classes is not None else ""
            labels = f"{self.first!r} to {self.last!r}"
            return [f"{head}: {counts}; {classes}{labels}; {self.sample}; fingerprint {self.fingerprint}"]
        return [head, *(f"        {p}" for p in self.problems), f"        {self.advice}"]


def known_sets() -> dict[tuple[str, str], str]:
    """(task, set) -> the pack's name where there is one to prepare. Drawn sets are not among them."""
    kinds = {"classes": "classification", "masks": "segmentation", "captions": "retrieval", "boxes": "detection"}
    cards = [card for card in known_cards().values() if not card.drawn]
    return {(task, card.name): card.prepare for kind, task in kinds.items() for card in cards if getattr(card, kind)}


def check_sets(names: list[str], root: Path) -> Iterator[Checked]:
    """Look at the sets of these names, at all known ones where there is none.

    Raises: TaskError for an unknown name, naming the nearest.

    Example: `[c.state for c in check_sets(["cars98"], Path("data"))]`
    """
    known = known_sets()
    every = sorted({n for _, n in known})
    for name in names:
        if name not in every:
            near = difflib.get_close_matches(name, every, 3, 0.4) or every
            raise TaskError(f"no data {name!r}; nearest: {', '.join(near)}")
    for (task, name), pack in known.items():
        if not names or name in names:
            yield _checked(task, name, pack, root)


def _checked(task: str, name: str, pack: str, root: Path) -> Checked:
    found, started = Checked(name, task), time.perf_counter()
    source = ""
    try:
        built = build_task(task, root, {"data": name})
        source = next((s for s in built.card.sources.values() if s), "")
        found.problems = missing_of(built, _reported(task, built))
        found.state = "ok" if not found.problems else "wrong" if _there(found.problems, root) else "missing"
        if found.state == "ok":
            _LOOKS[task](found, built)
            found.fingerprint = built.fingerprint(
                "train" if "train" in built.card.splits else next(iter(built.card.splits))
            )
    except (ValueError, OSError, KeyError, IndexError) as error:
        text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        found.state, found.problems = "wrong", [text]
    found.advice = _advice(found, pack, source)
    found.seconds = round(time.perf_counter() - started, 2)
    return found


def _there(problems: list[str], root: Path) -> bool:
    """A complaint about a file that is there, or about a number: nothing is missing, something is wrong."""
    words = [word.rstrip(":,;") for text in problems for word in text.split() if word.startswith(str(root))]
    return any("it must have" in text for text in problems) or any(Path(word).is_file() for word in words)


def _advice(found: Checked, pack: str, source: str) -> str:
    if found.state == "ok":
        return ""
    if pack:
        made = PACKS[pack]
        again = "remove what is named, then " if found.state == "wrong" else ""
        return f"{again}download {made.source}; {made.needs}; then {made.command}"
    again = f"then: run_all.py check data {found.name}"
    if found.state == "wrong":
        return f"remove what is named and get it again{f' from {source}' if source else ''}; {again}"
    known = any("http" in text for text in found.problems) or not source
    return f"{'get that' if known else f'download {source}'} and unpack it, so that the paths named here exist; {again}"


def _reported(task: str, built: Task) -> tuple[str, ...]:
    """The splits that results are reported on."""
    usual = getattr(built.data, "usual", built.card.splits)  # type: ignore[attr-defined]
    return tuple(s for s in usual if s not in ("train", "minival"))


def _classification(found: Checked, task: Any) -> None:
    from tasks.data.decoding import decode

    for split in task.data.splits:
        found.splits[split] = len(task.labelled(split))
    train = task.labelled("train")
    found.classes = len(train.classes)
    found.first, found.last = (train.classes[int(train.labels[i])] for i in (0, -1))
    test = task.labelled(next(iter(task.data.reported), "minival"))
    found.sample = _size(decode(test.read(0), test.names[0]))


def _segmentation(found: Checked, task: Any) -> None:
    for split in task.data.splits:
        found.splits[split] = len(task.dataset(split))
    found.classes = len(task.classes)
    found.first, found.last = task.classes[0], task.classes[-1]
    split = next(s for s in ("test", "val") if found.splits.get(s))
    image, target = task.dataset(split)[0]
    shown = [task.classes[i] for i in target["label"].unique().tolist() if i < len(task.classes)]
    found.sample = f"{_size(image)} with {', '.join(shown)}"


def _retrieval(found: Checked, task: Any) -> None:
    for split in task.data.splits:
        found.splits[split] = len(task.data.load(split))
    test = task.data.load("test")
    found.first, found.last = test.captions[0][0], test.captions[-1][-1]
    found.sample = _size(task.dataset("test")[0][0])


def _detection(found: Checked, task: Any) -> None:
    for split in task.data.usual:
        found.splits[split] = len(task.boxed(split))
    truth = task.truth("val")
    found.classes = len(truth.names)
    found.first, found.last = truth.names[0], truth.names[-1]
    image, target = task.dataset("val")[0]
    height, width = target["size"].tolist()
    found.sample = f"a picture of {width}x{height} px padded to {image.shape[-1]}, {len(truth.box)} boxes in val"


def _size(image: Any) -> str:
    """A picture of one grey would be a broken decoder."""
    if int(image.max()) == int(image.min()):
        raise TaskError(f"the first picture is one grey, {int(image.max())}: not a photograph")
    return f"a picture of {image.shape[2]}x{image.shape[1]} px"


_LOOKS: dict[str, Callable[[Checked, Any], None]] = {
    "classification": _classification, "segmentation": _segmentation, "retrieval": _retrieval, "detection": _detection,
}  # fmt: skip
