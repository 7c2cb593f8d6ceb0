"""Pictures with label maps by name: known downloads, folder pairs of a user's own, tars that stay packed."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np

from tasks.data.cards import Form, SetCard, SplitCard, check_name, find_card
from tasks.data.errors import DataError, Missing, Wrong, collected
from tasks.data.pictures import SUFFIXES
from tasks.data.readers.files import Files, Members, passed_over, pictures_under, read_text, tar_members
from tasks.data.readers.label_maps import IGNORE, Labels
from tasks.data.readers.meanings import read_meaning
from tasks.data.readers.pairs import by_key, choose_masks, no_mask
from tasks.data.scenes import scenes_folder, undrawable
from tasks.data.sets.holdout import held_out
from tasks.data.splits import Masked

KIND = "masks"
PLACES = ("segmentation", "", "ade")  # under the data root; mmsegmentation has ade/ADEChallengeData2016
# names of folders of an own set
IMAGES = ("images", "img_dir", "image", "img", "imgs", "JPEGImages", "leftImg8bit")
MASKS = ("annotations", "ann_dir", "masks", "mask", "labels", "label", "SegmentationClass", "gtFine")
SPLITS = {"train": ("training", "train"), "val": ("validation", "val", "valid", "test", "testing"),
          "test": ("test", "testing")}  # fmt: skip


@dataclass(frozen=True)
class MaskedSet:
    """A set of pictures with label maps under a data root; nothing is read before it is asked for.

    Args: image_suffix, mask_suffix: how names end before the type of file, where they differ, such as `_mask`.
        count, ignore, reduce_zero: what the labels of a folder without meta.json mean.
    """

    name: str
    root: Path
    card: SetCard
    form: Form
    own: bool = False
    unknown: str = ""  # why a folder that is not there is no known set either
    image_suffix: str = ""
    mask_suffix: str = ""
    count: int = 0
    ignore: int = IGNORE
    reduce_zero: bool = False

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the card has, or that an own folder has on disk, with `minival` after `train`."""
        listed = tuple(self.form.splits) or tuple(s for s in SPLITS if self._own_folders(s) is not None)
        held = ("minival",) if self.form.held_out else ()
        return tuple(n for s in listed for n in ((s, *held) if s == "train" else (s,)))

    def card_splits(self) -> dict[str, int | None]:
        """Pictures that each split must have, `None` where that is not fixed or depends on what is held out."""
        if not self.form.splits:
            return {"train": None, "minival": None, "val": None}
        sizes = {name: split.pictures for name, split in self.form.splits.items()}
        held = bool(self.form.held_out)
        return {s: None if held and s in ("train", "minival") else sizes[s] for s in self.splits}

    def load(self, split: str) -> Masked:
        """A split; `train` is without `minival`.

        Raises: Missing or Wrong for files, pairs, sizes and meta.json that are not as they must be.

        Example: `len(masked_set("camvid11", "data").load("test")) == 233`
        """
        if split not in ("train", "minival"):
            return self.whole(split)
        whole = self.whole("train")
        aside = held_out(whole.names, self.form.held_out, self.form.held_out_most)
        return whole.subset(np.flatnonzero(aside if split == "minival" else ~aside))

    def whole(self, split: str) -> Masked:
        """A split as it is on disk. Raises: as `load`."""
        if self.card.drawn:
            scenes_folder(self.root)
        if split not in self.splits:
            if not self.folder.is_dir() and not self._shards:
                raise Missing("no such folder", path=self.folder, advice=self._advice)
            there = ", ".join(self.splits) or "none"
            raise Missing(f"{self.name} has no split {split!r}; it has: {there}", path=self.folder, advice=self._advice)
        expected = self.form.splits[split].pictures if split in self.form.splits else None
        pairs = self._pairs(split)
        if expected is not None and len(pairs) != expected:
            raise Wrong(f"split {split!r} of {self.name} has {len(pairs):,} images, it must have {expected:,}",
                          path=self.folder, advice=self._advice)  # fmt: skip
        return pairs

    def problems(self, splits: tuple[str, ...]) -> list[DataError]:
        """What of the splits is missing or wrong, one error each at most; reads no pictures, draws nothing."""
        if self.card.drawn:
            return undrawable(self.root)
        return collected(self.whole, ("train" if s == "minival" else s for s in splits))

    @property
    def _advice(self) -> str:
        return self.unknown if self.own else self.card.get_it

    @functools.cached_property
    def folder(self) -> Path:
        """The set's folder: the first of the usual places that is there."""
        places = [self.root / place / self.form.files for place in PLACES]
        if not self.own and not self.form.meta and not self.card.drawn:
            return next((p for p in places if p.is_dir()), places[1])
        place = self.root / self.form.files
        return place if place.is_dir() or not self.own else next((p for p in places if p.is_dir()), place)

    @property
    def _shards(self) -> list[Path]:
        """Tars of a pack, `NAME_*.tar` beside its folder."""
        return [] if self.folder.is_dir() else sorted(self.folder.parent.glob(f"{escape(self.folder.name)}_*.tar"))

    @functools.cached_property
    def _members(self) -> dict[str, tuple[Path, int, int]]:
        prefix = f"{self.folder.name}/"
        found = tar_members(self._shards)
        return {name.removeprefix(prefix): place for name, place in found.items() if name.startswith(prefix)}

    @functools.cached_property
    def meaning(self) -> Labels:
        """What the values of masks mean: the card's classes, or those of meta.json, or the options'.

        Raises: Missing where nothing says it. Wrong for a meta.json that is not as it must be.
        """
        form = self.form
        if form.classes:
            return Labels(form.classes, form.ignore_label, form.reduce_zero_label)
        beside = self.root / form.meta if form.meta else None
        for path in (beside, self.folder / "meta.json", self.folder.parent / f"{self.folder.name}_meta.json"):
            if path is not None and path.is_file():
                return read_meaning(path)
        if self.card.drawn:
            scenes_folder(self.root)
            return read_meaning(self.root / form.meta)
        if self.count:
            return Labels(tuple(map(str, range(self.count))), self.ignore, self.reduce_zero)
        if not self.folder.is_dir() and not self._shards:
            raise Missing("no such folder", path=self.folder, advice=self._advice)
        form_of_it = '{"class_names": [...], "ignore_label": 255, "reduce_zero_label": false}'
        raise Missing("has no meta.json", path=self.folder, advice=f"it holds {form_of_it}; or say num_classes")

    def holds_masks(self, split: str) -> bool:
        """Has an own folder pictures and label maps of a split, by the names of its folders and files?"""
        folders = self._own_folders(split)
        return folders is not None and bool(self._listed(folders[1])[0])

    def _own_folders(self, split: str) -> tuple[str, str] | None:
        """Folders of pictures and masks of an own split: `images/SPLIT` or `SPLIT/images`, by their usual names."""
        there = self._folders
        for called in SPLITS.get(split, (split,)):
            for images in IMAGES:
                for masks in MASKS:
                    for pair in (
                        (f"{images}/{called}", f"{masks}/{called}"),
                        (f"{called}/{images}", f"{called}/{masks}"),
                    ):
                        if there.issuperset(pair):
                            return pair
            if there.issuperset((called, f"{called}annot")):
                return called, f"{called}annot"
        return None

    @functools.cached_property
    def _folders(self) -> set[str]:
        """Folders below the set's, two deep."""
        if not self.folder.is_dir():
            return {"/".join(name.split("/")[:n]) for name in self._members for n in (1, 2)}
        first = [p for p in self.folder.iterdir() if p.is_dir()]
        return {p.name for p in first} | {f"{p.name}/{q.name}" for p in first for q in p.iterdir() if q.is_dir()}

    def _pairs(self, split: str) -> Masked:
        card = self.form.splits.get(split, SplitCard())
        folders = (card.path, card.masks) if card.path else self._own_folders(split)
        assert folders is not None, split
        if not self.folder.is_dir() and not self._shards:
            raise Missing("no such folder", path=self.folder, advice=self._advice)
        meaning = self.meaning
        images, others = self._listed(folders[0])
        masks, _ = self._listed(folders[1])
        wanted = None
        if card.list:
            wanted = [line.strip() for line in read_text(self.folder / card.list).splitlines() if line.strip()]
        where = (self.folder / folders[0], self.folder / folders[1])
        ends = ([self.image_suffix] if self.image_suffix else list(self.form.image_suffixes) or [""],
                [self.mask_suffix] if self.mask_suffix else list(self.form.mask_suffixes) or [""])  # fmt: skip
        pictured = by_key(images, ends[0], where[0])
        chosen, values = choose_masks(masks, ends[1], pictured if wanted is None else wanted, where[1])
        if mapped := self.form.mask_values.get(values):
            meaning = Labels(meaning.names, IGNORE, values=mapped, others_ignored=True)
        names = sorted(pictured) if wanted is None else wanted
        for key in names:
            if key not in pictured:
                raise Missing(f"has no picture of {key}", path=where[0], advice=self._advice)
            if key not in chosen:
                raise no_mask(where, pictured[key], key, masks, self._advice)
        if not names:
            raise Missing("has no pictures", path=where[0], advice=passed_over(others) or self._advice)
        if wanted is None and (lonely := sorted(set(chosen) - set(pictured))):
            raise Missing(f"has no picture for the label map {where[1] / chosen[lonely[0]]}", path=where[0],
                          advice=passed_over(others) or self._advice)  # fmt: skip
        note = passed_over(others)
        return Masked(
            names, self._opened(folders[0], [pictured[key] for key in names]), meaning=meaning,
            masks=self._opened(folders[1], [chosen[key] for key in names]),
            notes=(f"{where[0]}: {note}",) if note else (),
        )  # fmt: skip

    def _listed(self, folder: str) -> tuple[list[str], list[str]]:
        """Pictures below a folder of the set, relative to it, and the files that no decoder takes."""
        place = self.folder / folder
        if place.is_dir():
            files = list(pictures_under(place))
        elif self.folder.is_dir():
            raise Missing("no such folder", path=place, advice=self._advice)
        else:
            prefix = f"{folder}/"
            inside = sorted(n.removeprefix(prefix) for n in self._members if n.startswith(prefix))
            files = [(n, Path(n).suffix.lower() in SUFFIXES) for n in inside]
        return [n for n, picture in files if picture], [n for n, picture in files if not picture]

    def _opened(self, folder: str, names: list[str]) -> Files | Members:
        if self.folder.is_dir():
            return Files(self.folder / folder, names)
        return Members([self._members[f"{folder}/{name}"] for name in names], names)


def masked_set(name: str, root: str | Path, **own: Any) -> MaskedSet:
    """The set behind a name: a known set, a card of the user's, or a folder of pictures and masks.

    A folder is under the data root or its `segmentation/`: `images/training` with `annotations/training`,
    `train/images` with `train/masks` and so on. `own`: the arguments of `MaskedSet` that say what labels mean.

    Raises: Wrong for a card that is not as it must be. A name that is neither set nor folder is an error of loading.

    Example: `masked_set("voc21", "data").splits == ("train", "minival", "val")`
    """
    root = Path(root)
    check_name(name)
    try:
        card = find_card(name, KIND, root)
    except Wrong as error:
        if error.path is not None:
            raise
        places = [root / name, root / "segmentation" / name]
        folder = next((p for p in places if p.is_dir() or any(p.parent.glob(f"{escape(p.name)}_*.tar"))), None)
        unknown = "" if folder else f"{name!r} {error.reason}"
        files = Path("segmentation", name) if folder == places[1] else Path(name)
        form = Form(layout="pairs", files=files.as_posix(), splits={})
        card = SetCard(name=name, title="own folder", licence="your own", source="your own folder", masks=form)
        return MaskedSet(name, root, card, form, True, unknown, **own)
    suffixes = {k: v for k, v in own.items() if k.endswith("suffix")}
    return MaskedSet(name, root, card, card.form(KIND), **suffixes)
