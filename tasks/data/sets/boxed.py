"""Pictures with boxes by name: LVIS over COCO's folders, COCO, packs in tars, labels of a user's own in these forms."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tasks.data.boxes.columns import BoxLabels, read_box_labels
from tasks.data.boxes.protocols import Protocol, protocol_of
from tasks.data.boxes.unusual import box_faults
from tasks.data.cards import Form, SetCard, SplitCard, check_name, find_card
from tasks.data.documents import read_json
from tasks.data.errors import DataError, Missing, Wrong, collected, shown
from tasks.data.readers.files import Files, Members, listing, other_case, tar_members
from tasks.data.scenes import scenes_folder, undrawable
from tasks.data.sets.holdout import held_out
from tasks.data.splits import Boxed

KIND = "boxes"
# labels of an own folder, the first that is there; `{split}` is each of the names a split goes by
FILES = ("{split}.json", "annotations/{split}.json", "annotations/instances_{split}.json",
         "annotations/instances_{split}2017.json", "{split}/_annotations.coco.json", "instances_{split}.json",
         "annotations/instances_{split}2014.json", "lvis_v1_{split}.json")  # fmt: skip
CALLED = {"train": ("train", "training"), "val": ("val", "valid", "validation", "test")}
INSIDE = ("", "images/", "{split}/", "images/{split}/", "{split}2017/", "JPEGImages/")  # where pictures may lie


@dataclass(frozen=True)
class BoxedSet:
    """A set of pictures with boxes under a data root; nothing is read before `load`."""

    name: str
    root: Path
    card: SetCard
    form: Form
    own: bool = False
    unknown: str = ""  # why a folder that is not there is no known set either
    _read: dict[str, BoxLabels] = field(default_factory=dict, repr=False, compare=False)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of the card, `minival` after `train`; of an own folder train and val."""
        listed = tuple(self.form.splits) or ("train", "val")
        held = ("minival",) if self.form.held_out else ()
        return tuple(n for s in listed for n in ((s, *held) if s == "train" else (s,)))

    @property
    def usual(self) -> tuple[str, ...]:
        """The splits that are asked for unless others are named."""
        return tuple(s for s in self.splits if s not in self.form.splits or self.form.splits[s].usual)

    @property
    def rules(self) -> Protocol:
        """Whose rules results are scored by: of a known set those of its layout, of an own folder those of the form
        that its val has, LVIS' where that cannot be told."""
        if not self.own:
            return Protocol(self.form.layout)
        with contextlib.suppress(DataError, OSError):
            return protocol_of(self.file("val"))
        return Protocol.lvis

    def card_splits(self) -> dict[str, int | None]:
        """Pictures that each split must have, `None` where that is not fixed or depends on what is held out."""
        sizes, held = self.form.sizes(), bool(self.form.held_out)
        return {s: None if held and s in ("train", "minival") else sizes.get(s) for s in self.splits}

    def load(self, split: str) -> Boxed:
        """A split; `train` is without `minival`.

        Raises: Missing or Wrong for labels and pictures that are not as they must be, boxes of a negative side or
            outside their picture.

        Example: `len(boxed_set("lvis_coco80", "data").load("val")) == 800`
        """
        if split not in self.splits:
            raise Wrong(f"has no split {split!r}; it has: {', '.join(self.splits)}", place=f"data {self.name!r}")
        source = "train" if split == "minival" else split
        labels = self.labels(source)
        if split in ("train", "minival") and self.form.held_out:
            names = [_name(names, labels, i) for i, names in enumerate(labels.pictures)]
            aside = held_out(names, self.form.held_out, self.form.held_out_most)
            labels = labels.of_images(aside if split == "minival" else ~aside)
            if not len(labels.image_ids):
                raise Missing(f"split {split!r} of {self.name} has no images", path=self.file(source))
        return self._with_pictures(labels, source)

    def whole(self, split: str) -> Boxed:
        """A split as it is on disk. Raises: as `load`."""
        return self._with_pictures(self.labels(split), split)

    def labels(self, split: str) -> BoxLabels:
        """The labels of a split as it is on disk, read once. Raises: as `load`, but not for pictures."""
        if split not in self._read:
            if self.card.drawn:
                scenes_folder(self.root)
            path = self.file(split)
            if not path.is_file():
                raise Missing("no such file", path=path, advice=self._advice)
            labels = read_box_labels(path)
            self._check(labels, split)
            self._read[split] = labels
        return self._read[split]

    def problems(self, splits: tuple[str, ...]) -> list[DataError]:
        """What of the splits is missing or wrong, one error each at most; reads no pictures, draws nothing."""
        if self.card.drawn:
            return undrawable(self.root)

        def look(split: str) -> None:
            self.whole(split)
            if split == "train":
                self.negatives()

        return collected(look, ("train" if s == "minival" else s for s in splits))

    def negatives(self) -> dict[object, list[int]]:
        """Image id -> places of the categories known to be absent, out of the card's file; {} where it has none.

        Raises: Missing for no file. Wrong for ids that the labels do not have.
        """
        if not self.form.negatives:
            return {}
        path, labels = self.root / self.form.negatives, self.labels("train")
        content = read_json(path)
        if not isinstance(content, dict):
            raise Wrong("must be an object of image ids and category ids", path=path)
        place = {own: i for i, own in enumerate(labels.category_ids.tolist())}
        images = {str(own): own for own in labels.image_ids.tolist()}
        found = {}
        for image, listed in content.items():
            if not isinstance(listed, list) or not all(type(c) in (int, str) and c in place for c in listed):
                raise Wrong(f"must be a list of ids of categories, not {shown(listed)}", path=path, field=image)
            own = images.get(image, images.get(image.lstrip("0")))  # COCO's files have twelve digits
            if own is not None:  # the file covers other splits too
                found[own] = [place[c] for c in listed]
        if not found:
            raise Wrong(f"has no image of {self.file('train').name}", path=path)
        return found

    def file(self, split: str) -> Path:
        """The label file of a split, whether it is there or not."""
        if not self.own:
            card = self.form.splits.get(split, SplitCard())
            return self.root / (card.path or self.form.files.replace("{split}", card.download or split))
        folder = self.root / self.form.files
        tried = [folder / form.replace("{split}", name) for name in CALLED.get(split, (split,)) for form in FILES]
        return next((path for path in tried if path.is_file()), tried[0])

    @property
    def _advice(self) -> str:
        if not self.own:
            return self.card.get_it
        if self.unknown:
            return self.unknown
        forms = ", ".join(form.replace("{split}", "SPLIT") for form in FILES[:5])
        return f"labels of a folder of your own are called {forms}"

    def _check(self, labels: BoxLabels, split: str) -> None:
        """Sizes against the card's, boxes against their pictures'."""
        card = self.form.splits.get(split, SplitCard())
        for what, there, expected in (
            ("images", len(labels.image_ids), card.pictures), ("annotations", len(labels.box), card.labels),
        ):  # fmt: skip
            if expected is not None and there != expected:
                said = f"split {split!r} of {self.name} has {there:,} {what}, it must have {expected:,}"
                raise Wrong(said, path=labels.path, advice=self._advice)
        count = self.form.class_count
        if count is not None and len(labels.categories) != count and card.usual:
            said = f"split {split!r} of {self.name} has {len(labels.categories):,} categories, it must have {count:,}"
            raise Wrong(said, path=labels.path, advice=self._advice)
        bad, reasons = box_faults(labels.box, labels.sizes[labels.image])
        if len(bad):
            width, height = labels.sizes[labels.image[bad[0]]]
            advice = f"{len(bad):,} of {len(labels.box):,} boxes are such; boxes are x, y, width, height in pixels"
            said = f"{labels.box[bad[0]].tolist()} {reasons[0]} ({width:g}x{height:g} px)"
            raise Wrong(said, path=labels.path, place=labels.place(int(bad[0])), field="bbox", advice=advice)

    def _with_pictures(self, labels: BoxLabels, split: str) -> Boxed:
        names = [_name(names, labels, i) for i, names in enumerate(labels.pictures)]
        pictures = self._pictures(labels, split, names)
        empty = int((labels.box[:, 2:] <= 0).any(1).sum())
        notes = (f"{labels.path}: {empty:,} of {len(labels.box):,} boxes have no area: training drops them",) * bool(
            empty
        )
        return Boxed(names, pictures, labels=labels, notes=(*notes, *_doubles(labels, names)))

    def _pictures(self, labels: BoxLabels, split: str, names: Sequence[str]) -> Files | Members:
        folders, tars = self._folders(split)
        todo, place = dict.fromkeys(range(len(names))), [""] * len(names)
        called = CALLED.get(split, (split,))
        inside = list(dict.fromkeys(i.replace("{split}", c) for i in INSIDE for c in called))
        for rank in range(max(map(len, labels.pictures), default=0)):
            for folder in folders:
                for prefix in inside:
                    wanted = {i: prefix + labels.pictures[i][rank] for i in todo if rank < len(labels.pictures[i])}
                    if not wanted or (prefix and not (folder / prefix).is_dir()):
                        continue
                    there = listing(folder, list(wanted.values()))
                    for i, name in wanted.items():
                        if name in there:
                            place[i] = f"{folder}/{name}"
                            del todo[i]
        if not todo:
            return Files(Path(), place)
        if tars and len(todo) == len(names):
            return self._members(labels, tars, names)
        raise self._absent(labels, [names[i] for i in todo], len(names), folders[0])

    def _members(self, labels: BoxLabels, tars: list[Path], names: Sequence[str]) -> Members:
        members = tar_members(tars)
        places, absent = [], []
        for i, own in enumerate(labels.pictures):
            tried = [prefix + name for name in own for prefix in ("", "images/")]
            found = next((members[name] for name in tried if name in members), None)
            if found is None:
                absent.append(names[i])
            else:
                places.append(found)
        if absent:
            raise self._absent(labels, absent, len(names), tars[0].parent)
        return Members(places, names)

    def _folders(self, split: str) -> tuple[list[Path], list[Path]]:
        """Folders that may hold the pictures, and tars."""
        file = self.file(split)
        if self.own:
            base = self.root / self.form.files
            return list(dict.fromkeys([base, file.parent, file.parent.parent])), sorted(base.glob("*.tar"))
        first = self.root / self.form.images
        return [first, self.root / "coco"], sorted(first.glob("*.tar"))

    def _absent(self, labels: BoxLabels, absent: Sequence[str], of: int, folder: Path) -> DataError:
        file = labels.path.name if labels.path else "labels"
        needed = {name.partition("/")[0] for name in absent if "/" in name}
        lacking = sorted(name for name in needed if not (folder / name).is_dir())
        advice = self._advice if not self.own else ""
        if lacking:
            said = f"there is no folder {', '.join(lacking)}"
            said += "; pictures of LVIS' val lie in train2017 and in val2017" * (lacking == ["train2017"])
            advice = f"{said}; {advice}" if advice else said
        capitals = (other_case(folder / place, absent[0]) for place in INSIDE if "{" not in place)
        advice = next(filter(None, capitals), advice)
        return Missing(f"{len(absent):,} of {of:,} pictures that {file} names are missing, the first is {absent[0]}",
                       path=folder, advice=advice)  # fmt: skip


def _doubles(labels: BoxLabels, names: Sequence[str]) -> list[str]:
    """Notes on pictures that several images name, and names that several categories have."""
    found = []
    for told, kind, what in ((names, "images", "the same picture"), (labels.names, "categories", "the same query")):
        if twice := [name for name, count in Counter(told).items() if count > 1]:
            found.append(
                f"{labels.path}: several {kind} are named {shown(twice[0])} ({what}); {len(twice):,} such names"
            )
    return found


def _name(names: tuple[str, ...], labels: BoxLabels, i: int) -> str:
    if not names:
        own = shown(labels.image_ids.tolist()[i])
        raise Wrong("has neither 'file_name' nor 'coco_url'", path=labels.path, place=f"image (id {own})")
    return names[0]


def boxed_set(name: str, root: str | Path) -> BoxedSet:
    """The set behind a name: a known set, a card of the user's, or a folder with labels in the form of LVIS or COCO.

    Raises: Wrong for a card that is not as it must be. A name that is neither set nor folder is an error of loading.

    Example: `boxed_set("lvis_coco80", "data").splits == ("train", "minival", "val", "real")`
    """
    root = Path(root)
    check_name(name)
    try:
        card = find_card(name, KIND, root)
    except Wrong as error:
        if error.path is not None:
            raise
        form = Form(layout="coco", files=name, splits={})
        card = SetCard(name=name, title="own folder", licence="your own", source="your own folder", boxes=form)
        unknown = "" if (root / name).is_dir() else f"{name!r} {error.reason}"
        return BoxedSet(name, root, card, form, True, unknown)
    return BoxedSet(name, root, card, card.form(KIND))
