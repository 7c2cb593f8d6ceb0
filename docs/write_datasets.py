"""Writes docs/datasets.md out of the set cards: `python docs/write_datasets.py`; a test compares the two."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.prepare.check import TASKS
from tasks import build_task
from tasks.data.cards import KINDS, Form, SetCard, known_cards

PAGE = Path(__file__).parent / "datasets.md"
TITLES = {
    "classes": "Pictures with classes: `classification`, `image_retrieval`, `upstream`",
    "masks": "Pictures with label maps: `segmentation`",
    "captions": "Pictures with captions: `retrieval`",
    "boxes": "Pictures with boxes: `detection`",
    "landmarks": "Landmarks: `landmark_retrieval`",
}
HEAD = """# Data sets

Written by `docs/write_datasets.py` out of the cards in `tasks/data/sets/cards/`; change those, not this page.

Paths are relative to the data root (`--data-root`, or `FLEXIVIT_DATA`). `run_all.py check data NAME` compares a set
with the sizes below, looks at every picture and label, and says what is missing and where it is to be had; `plan` and
`run` do the same before anything is trained. *Held out* is `minival`: the share of train whose names have the smallest
SHA-256, whatever the seed. *Protocol* is what rows of the set say by default, with the metric that is reported first;
recipes, constants and sources are in [protocols](protocols.md). [Add a data set](add-a-dataset.md) shows how a set of
your own is read.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(line for kind in KINDS for line in _section(kind))])


def _section(kind: str) -> Iterator[str]:
    yield f"## {TITLES[kind]}\n"
    if kind == "boxes":
        yield "Sets of the layout `coco` are scored by COCO's rules, those of `lvis` by LVIS'.\n"
    yield "| set | what | protocol | pictures a split | held out | layout | read from | where to get it | licence |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for card in known_cards().values():
        form = getattr(card, kind)
        if form is not None:
            yield f"| {' | '.join(map(_cell, _columns(card, form, _protocol(kind, card.name))))} |"
    yield ""


def _protocol(kind: str, name: str) -> str:
    """What rows of the set say by default, and the metric that is reported first."""
    card = build_task(TASKS[kind], ".", {"data": name}).card
    return f"`{card.protocol}`: {card.metric.name}"


def _columns(card: SetCard, form: Form, protocol: str) -> list[str]:
    classes = f"{form.class_count or len(form.classes):,} classes" if form.class_count or form.classes else ""
    what = "; ".join(part for part in (card.title, classes, card.citation) if part)
    sizes = ", ".join(
        f"{name} {'any' if split.pictures is None else format(split.pictures, ',')}"
        + (f" ({split.labels:,} boxes)" if split.labels else "")
        for name, split in form.splits.items()
    )
    most = f", at most {form.held_out_most:,}" if form.held_out_most else ""
    held = f"{form.held_out:.2%}{most}" if form.held_out and "train" in form.splits else "-"
    if form is card.captions and "val" in form.splits:
        held = "its val"
    sources = [card.source, *(f"{name}: {split.source}" for name, split in form.splits.items() if split.source)]
    read = "; ".join(form.accepts) or ("drawn on first use" if card.drawn else f"`{form.files}`")
    return [f"`{card.name}`", what, protocol, sizes, held, form.layout, read, "; ".join(sources), card.licence]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
