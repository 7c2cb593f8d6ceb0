"""Captioned pictures by name: a known set, a user's card, or a file of captions of their own."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.data.cards import Form, SetCard, SplitCard, check_name, find_card
from tasks.data.errors import DataError, Missing, Wrong, collected, shown
from tasks.data.readers.captions import (
    Listed,
    read_caption_lines,
    read_caption_table,
    read_coco_captions,
    read_karpathy,
    split_lists,
)
from tasks.data.readers.files import listing, pictures_in
from tasks.data.readers.tables import open_parquet
from tasks.data.scenes import scenes_folder, undrawable
from tasks.data.sets.holdout import held_out
from tasks.data.splits import Captioned

KIND = "captions"
MOST = 500  # pictures held out of train where a set has no val
LINES = (".txt", ".csv", ".tsv", ".token")
# where pictures lie beside a file of captions
BESIDE = ("images", "Images", "flickr30k-images", "flickr30k_images", "Flicker8k_Dataset", "Flickr8k_Dataset", "",
          "flickr30k_images/flickr30k_images")  # fmt: skip


@dataclass(frozen=True)
class CaptionedSet:
    """A set of captioned pictures under a data root; nothing is read before `load`."""

    name: str
    root: Path
    card: SetCard
    form: Form
    own: bool = False

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits there are; `minival` is val, or held out of train where there is no val."""
        return tuple(self.form.splits) or tuple(s for s in ("train", "val", "test") if s in self._own_splits)

    @property
    def has_val(self) -> bool:
        return "val" in self.splits

    def load(self, split: str, most: int = 0) -> Captioned:
        """A split; pictures stay encoded until asked for. `most`: the first so many captions of an image, 0: all.

        Raises: Missing or Wrong for files, splits, sizes, captions and pictures that are not as they must be.

        Example: `len(captioned_set("flickr8k", "data").load("test"))` is 1000.
        """
        wanted = split if split != "minival" else "val" if self.has_val else "train"
        found = self.whole(wanted)
        if most:
            found = Captioned(found.names, found.pictures, captions=[c[:most] for c in found.captions])
        if self.has_val or split not in ("train", "minival"):
            return found
        aside = held_out(found.names, self.form.held_out, self.form.held_out_most or MOST)
        if len(found) < 10 and self.form.held_out:
            raise Missing(
                f"train of {self.name} has {len(found)} images, too few to hold a minival out", path=self.root
            )
        return found.subset(np.flatnonzero(aside if split == "minival" else ~aside).tolist())

    def whole(self, split: str) -> Captioned:
        """A split as it is on disk. Raises: as `load`."""
        if self.form.splits and split not in self.form.splits:
            there = ", ".join([*self.form.splits, "minival"])
            raise Wrong(f"has no split {split!r}; it has: {there}", place=f"captions {self.name!r}")
        if self.card.drawn:
            scenes_folder(self.root)
        found = self._read(split)
        if not len(found):
            raise Missing(f"split {split!r} of {self.name} is empty", path=self.root)
        expected = self.form.splits[split].pictures if self.form.splits else None
        if expected is not None and len(found) != expected:
            raise Wrong(f"split {split!r} of {self.name} has {len(found):,} images, it must have {expected:,}",
                          path=self.root, advice=self._advice)  # fmt: skip
        return found

    def problems(self, splits: tuple[str, ...]) -> list[DataError]:
        """What of the splits is missing or wrong, one error each at most; reads no pictures, draws nothing."""
        if self.card.drawn:
            return undrawable(self.root)
        try:
            wanted = splits or self.splits
        except DataError as error:
            return [error]
        return collected(self.whole, (("val" if self.has_val else "train") if s == "minival" else s for s in wanted))

    @property
    def _advice(self) -> str:
        return "" if self.own else self.card.get_it

    def _read(self, split: str) -> Captioned:
        form, card = self.form, self.form.splits.get(split, SplitCard())
        place = form.files.replace("{split}", card.download or split)
        if form.layout == "parquet":
            paths = sorted(self.root.glob(place))
            if not paths:
                raise Missing(f"no {place}", path=self.root, advice=self._advice)
            return read_caption_table(open_parquet(paths))
        path = self.root / place
        if not path.is_file():
            raise Missing("no such file", path=path, advice=self._advice)
        if form.layout == "coco":
            listed = read_coco_captions(path)
        else:
            listed = self._all.get(split, {})
            if not listed:
                raise Missing(f"has no split {split!r}; it has: {', '.join(sorted(self._all))}", path=path)
        names = list(listed)
        captions = [listed[name] for name in names]
        images = form.images.replace("{split}", card.download or split)
        if images.endswith(".tar"):
            tars = sorted(self.root.glob(images))
            if not tars:
                raise Missing(f"no {images}", path=self.root, advice=self._advice)
            return Captioned(names, pictures_in(self.root, names, tars, self._advice, path), captions=captions)
        folder = self._pictures(path, images, names, card.download or split)
        pictures = pictures_in(folder, names, advice=self._advice, path=path)
        return Captioned(names, pictures, captions=captions, notes=self._left(path) if split == "train" else ())

    def _left(self, path: Path) -> tuple[str, ...]:
        """A note on images of splits that no one reads."""
        if self.form.layout == "coco":
            return ()
        others = {name: len(listed) for name, listed in self._all.items() if name not in ("train", "val", "test")}
        told = ", ".join(f"{count:,} of split {shown(name)}" for name, count in sorted(others.items()))
        return (f"{path}: images are passed over: {told}; read are train, val and test",) if others else ()

    def _pictures(self, path: Path, images: str, names: list[str], called: str) -> Path:
        """The folder of the pictures: the card's, or the first beside the file that has some of them."""
        first = self.root / images
        if not self.own and first.is_dir():
            return first
        own = [f"{inside}{called}{year}" for inside in ("", "images/") for year in ("2017", "2014", "")]
        beside = [first, *(path.parent / place for place in (*BESIDE, *own))]
        beside += [path.parent.parent / place for place in (*BESIDE, *own) if place]
        some = names[:: max(1, len(names) // 8)]
        return next((folder for folder in beside if folder.is_dir() and listing(folder, some)), first)

    @functools.cached_property
    def _all(self) -> dict[str, Listed]:
        """All splits of a file that holds all."""
        path = self.root / self.form.files
        if self.form.layout == "karpathy":
            return read_karpathy(path)
        listed, splits = read_caption_lines(path)
        if not splits:
            lists = split_lists(path.parent)
            splits = {name: split for split, names in lists.items() for name in names}
            for split, names in lists.items():
                if absent := [name for name in names if name not in listed]:
                    raise Wrong(f"has no captions of {len(absent):,} of the {len(names):,} pictures of {split}, the "
                                f"first is {absent[0]}", path=path)  # fmt: skip
        if not splits:
            wanted = "lists of names (train.txt, val.txt, test.txt, or Flickr_8k.trainImages.txt and so on)"
            advice = f"put {wanted} beside it, or Karpathy's dataset_NAME.json"
            raise Missing("says no splits", path=path, advice=advice)
        found: dict[str, Listed] = {}
        for name, split in splits.items():
            found.setdefault(split, {})[name] = listed[name]
        return found

    @functools.cached_property
    def _own_splits(self) -> tuple[str, ...]:
        return tuple(self._all)


def captioned_set(name: str, root: str | Path) -> CaptionedSet:
    """The set behind a name: a known set, a card of the user's, or the path of a file of captions.

    Read are Karpathy's JSON, COCO captions with `{split}` in the path, Flickr's token files and CSV, pictures beside.

    Raises: Wrong naming the nearest known sets.

    Example: `captioned_set("flickr8k", "data").has_val`
    """
    root = Path(root)
    check_name(name)
    suffix = Path(name).suffix.lower()
    if suffix in (".json", *LINES):
        layout = "flickr" if suffix in LINES else "coco" if "{split}" in name else "karpathy"
        splits = {"train": SplitCard(), "test": SplitCard(download="val")} if layout == "coco" else {}
        images = str(Path(name).parent / "images")
        form = Form(layout=layout, files=name, images=images, splits=splits)  # type: ignore[arg-type]
        card = SetCard(name=name, title="own file", licence="your own", source="your own file", captions=form)
        return CaptionedSet(name, root, card, form, own=True)
    try:
        card = find_card(name, KIND, root)
    except Wrong as error:
        if error.path is not None:
            raise
        advice = "also the path of a Karpathy .json, of COCO captions (with {split}), of a token file or CSV"
        raise Wrong(error.reason, place=error.place, advice=advice) from None
    return CaptionedSet(name, root, card, card.form(KIND))
