"""Labelled pictures by name: a known set, a user's card, a folder of their own; classes, splits, checks."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.data.cards import Form, SetCard, SplitCard, check_name, find_card
from tasks.data.documents import read_json
from tasks.data.errors import DataError, Missing, Wrong, collected
from tasks.data.readers.classes import class_names, read_class_folders, read_class_table
from tasks.data.readers.imagenet import read_imagenet
from tasks.data.readers.official import read_sun397, read_torchvision
from tasks.data.readers.tables import open_parquet, open_saved
from tasks.data.scenes import scenes_folder, undrawable
from tasks.data.sets.holdout import held_out
from tasks.data.sets.own import locate
from tasks.data.splits import Labelled

KIND = "classes"


@dataclass(frozen=True)
class LabelledSet:
    """A set of labelled pictures under a data root; nothing is read before `load`.

    Args: image, label: columns of a table; "": the first of the usual names.
    """

    name: str
    root: Path
    card: SetCard
    form: Form
    own: bool = False  # a folder of the user's
    image: str = ""
    label: str = ""
    bare: bool = False  # may a folder of class folders be its own test split?

    @property
    def reported(self) -> tuple[str, ...]:
        """The splits that results may be reported on."""
        return tuple(s for s in self.form.splits if s != "train")

    @property
    def splits(self) -> tuple[str, ...]:
        """All splits, `minival` after `train` where something is held out."""
        held = ("minival",) if self.form.held_out else ()
        return tuple(n for s in self.form.splits for n in ((s, *held) if s == "train" else (s,)))

    def card_splits(self) -> dict[str, int | None]:
        """Pictures that each split must have, `None` where that is not fixed or depends on what is held out."""
        sizes = self.form.sizes()
        held = bool(self.form.held_out)
        return {s: None if held and s in ("train", "minival") else sizes[s] for s in self.splits}

    def load(self, split: str) -> Labelled:
        """A split; `train` is without `minival`.

        Raises: Missing or Wrong for files, classes, sizes and labels that are not as they must be.

        Example: `len(labelled_set("cars98", "data").load("minival")) == 286`
        """
        if split not in self.splits and not self.own:
            raise Wrong(f"has no split {split!r}; it has: {', '.join(self.splits)}", place=f"data {self.name!r}")
        if split not in ("train", "minival"):
            return self.whole(split)
        whole = self.whole("train")
        aside = held_out(whole.names, self.form.held_out, self.form.held_out_most)
        return whole.subset(np.flatnonzero(aside if split == "minival" else ~aside))

    def whole(self, split: str) -> Labelled:
        """A split as it is on disk: train with what is held out of it. Raises: as `load`."""
        found = self._read(split)
        expected = self.form.splits[split].pictures if split in self.form.splits else None
        if expected is not None and len(found) != expected:
            raise Wrong(f"split {split!r} of {self.name} has {len(found):,} images, it must have {expected:,}",
                          path=self.root, advice=self._advice(split))  # fmt: skip
        count = self.form.class_count
        if count is not None and len(found.classes) != count:
            raise Wrong(f"split {split!r} of {self.name} has {len(found.classes)} classes, it must have {count}",
                        path=self.root, advice=self._advice(split))  # fmt: skip
        return found

    def problems(self, splits: tuple[str, ...]) -> list[DataError]:
        """What of the splits is missing or wrong, one error each at most; reads no pictures, draws nothing."""
        if self.card.drawn:
            return undrawable(self.root)
        return collected(self.whole, ("train" if s == "minival" else s for s in splits))

    def _advice(self, split: str) -> str:
        if self.own:
            return ""
        source = self.form.splits[split].source
        return f"get it from {source}" if source else self.card.get_it

    def _read(self, split: str) -> Labelled:
        form, advice = self.form, self._advice(split)
        if self.card.drawn:
            scenes_folder(self.root)
        if self.own:
            if self.bare and split == "test" and not self._has_splits:
                return read_class_folders(self.root / form.files)
            found = locate(self.root / form.files, split)
            saved = form.layout == "saved"
            return self._located("saved" if saved else found.layout, list(found.paths), split)
        if form.layout == "imagenet":
            return read_imagenet(self.root, form, split, advice)
        if form.layout == "torchvision":
            return read_torchvision(self.card.name, self.root, form.files, split, advice)
        if form.layout == "sun397":
            return read_sun397(self.root / form.files, split, advice)
        card = form.splits[split]
        place = card.path or form.files.replace("{split}", card.download or split)
        if form.layout in ("folders", "saved"):
            if not (self.root / place).is_dir():
                raise Missing("no such folder", path=self.root / place, advice=advice)
            return self._located(form.layout, [self.root / place], split)
        paths = sorted(self.root.glob(place))
        if not paths:
            raise Missing(f"no {place}", path=self.root, advice=advice)
        return self._located(form.layout, paths, split)

    def _located(self, layout: str, paths: list[Path], split: str) -> Labelled:
        if layout == "folders":
            return read_class_folders(paths[0], None if split == "train" else self._train_folders)
        table = open_saved(paths[0]) if layout == "saved" else open_parquet(paths)
        classes = None if split == "train" else self._train_classes
        return read_class_table(table, classes, self._named, self.image, self.label)

    @property
    def _has_splits(self) -> bool:
        for split in ("train", "test"):
            with contextlib.suppress(Missing):
                return bool(locate(self.root / self.form.files, split))
        return False

    @functools.cached_property
    def _train_folders(self) -> list[str] | None:
        """Names of train's class folders; None where there is no train to compare with."""
        try:
            place = locate(self.root / self.form.files, "train") if self.own else None
        except Missing:
            return None
        folder = place.paths[0] if place else self.root / self.form.files.replace("{split}", "train")
        return class_names(folder) if folder.is_dir() else None

    @functools.cached_property
    def _train_classes(self) -> tuple[str, ...] | None:
        """Names of train's classes, out of its table; None where there is no train to compare with."""
        try:
            return self._read("train").classes
        except Missing:
            return None

    @functools.cached_property
    def _named(self) -> list[str] | None:
        """Class names of the packs: a JSON beside the files."""
        path = self.root / self.form.meta
        if not self.form.meta or not path.is_file():
            return None
        content = read_json(path)
        names = content.get("class_names") if isinstance(content, dict) else None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise Wrong("must be a list of names", path=path, field="class_names")
        return names


def labelled_set(name: str, root: str | Path, image: str = "", label: str = "", bare: bool = False) -> LabelledSet:
    """The set behind a name: a known set, a card of the user's, `hf:FOLDER`, or a folder, with a slash in it.

    Raises: Wrong naming the nearest known sets.

    Example: `labelled_set("pets", "data").reported == ("test",)`
    """
    root = Path(root)
    check_name(name)
    if name.startswith("hf:") or ("/" in name and not name.endswith((".yaml", ".yml"))):
        folder = name.removeprefix("hf:")
        form = Form(layout="saved" if name.startswith("hf:") else "folders", files=folder,
                    splits={"train": SplitCard(), "test": SplitCard()})  # fmt: skip
        card = SetCard(name=name, title="own folder", licence="your own", source="your own folder", classes=form)
        return LabelledSet(name, root, card, form, True, image, label, bare)
    try:
        card = find_card(name, KIND, root)
    except Wrong as error:
        if error.path is not None:  # a card that is wrong, not a name
            raise
        there = (root / name).is_dir()
        advice = (
            f"the folder is named with a slash, {name}/" if there else "also a folder with a slash in it, or hf:FOLDER"
        )
        raise Wrong(error.reason, place=error.place, advice=advice) from None
    return LabelledSet(name, root, card, card.form(KIND), False, image, label)
