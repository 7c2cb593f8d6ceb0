"""LVIS and COCO labels as columns, read in chunks: polygons are dropped, every value is checked, ids are found once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tasks.data.boxes.ids import listed_ids, positions
from tasks.data.boxes.protocols import LVIS_FIELDS, Protocol
from tasks.data.documents import stream_json
from tasks.data.errors import Wrong, shown
from tasks.data.records import Records

FREQUENCIES = ("r", "c", "f")
PARTS = {"images": "image", "categories": "category", "annotations": "annotation"}
KEPT = {  # of each object; all else is dropped as it is read
    "images": ("id", "width", "height", "file_name", "coco_url", *LVIS_FIELDS),
    "categories": ("id", "name", "synonyms", "frequency"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "ignore"),
}  # fmt: skip
_ALL_KEPT = frozenset(name for names in KEPT.values() for name in names)
Pairs = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class BoxLabels:
    """Labels of I images, K categories and N boxes; images and categories are indices into the sorted ids.

    `image_ids` [I], `category_ids` [K] are int64, or objects where ids are texts. `pictures`: by image the names under
    which its picture may lie, the surest first. `sizes` float64 [I, 2], width and height. `categories`: name, synonyms
    and frequency of each. `image`, `category` int64 [N]; `box` float64 [N, 4] (x, y, width, height in pixels); `area`
    float64 [N], that of the box where it is absent; `crowd`, `ignore` bool [N]. `absent` and `partial`: (image,
    category) int64 [M] of the categories that LVIS lists with its images, None for labels without such lists.
    `annotation_ids` are in the file's order, as are the boxes.
    """

    path: Path | None
    protocol: Protocol
    image_ids: np.ndarray
    pictures: list[tuple[str, ...]]
    sizes: np.ndarray
    category_ids: np.ndarray
    categories: tuple[Mapping[str, Any], ...]
    annotation_ids: np.ndarray
    image: np.ndarray
    category: np.ndarray
    box: np.ndarray
    area: np.ndarray
    area_from_box: int
    crowd: np.ndarray
    ignore: np.ndarray
    absent: Pairs | None
    partial: Pairs | None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the categories."""
        return tuple(category["name"] for category in self.categories)

    def fault(self, i: int, reason: str, name: str = "bbox") -> Wrong:
        """The error for box i, told with its place in the file."""
        return Wrong(reason, path=self.path, place=self.place(i), field=name)

    def place(self, i: int) -> str:
        """What box i is called in an error."""
        return f"annotation {i} (id {shown(self.annotation_ids[i : i + 1].tolist()[0])})"

    def of_images(self, chosen: np.ndarray) -> BoxLabels:
        """The labels of some images, bool [I]; categories stay."""
        place = np.cumsum(chosen) - 1
        own = chosen[self.image]

        def listed(pairs: Pairs | None) -> Pairs | None:
            if pairs is None:
                return None
            kept = chosen[pairs[0]]
            return place[pairs[0][kept]], pairs[1][kept]

        return BoxLabels(
            self.path, self.protocol, self.image_ids[chosen],
            [names for names, kept in zip(self.pictures, chosen, strict=True) if kept], self.sizes[chosen],
            self.category_ids, self.categories, self.annotation_ids[own], place[self.image[own]], self.category[own],
            self.box[own], self.area[own], self.area_from_box, self.crowd[own], self.ignore[own],
            listed(self.absent), listed(self.partial),
        )  # fmt: skip


def read_box_labels(labels: str | Path | Mapping[str, Any], file: str | Path | None = None) -> BoxLabels:
    """Labels from an LVIS or COCO JSON file, in memory of a tenth of it, or from what such a file holds.

    Args: file: the name in messages, where `labels` is no path.
    Raises: Missing and Wrong for a file that is none, missing parts, no images, no categories, no annotations, ids that
        are unknown or occur twice, values that the schema forbids: with file, place and field.

    Example: `read_box_labels("lvis_v1_val.json").box.shape` is (244707, 4)
    """
    if isinstance(labels, Mapping):
        builder = _Builder(file)
        for key, value in labels.items():
            if key in PARTS:
                builder.add(key, 0, value)
        return builder.built(labels)
    if not isinstance(labels, str | Path):
        raise Wrong(f"is {shown(labels)}, not LVIS or COCO labels, which are an object", path=file)
    builder, keys = _Builder(labels), []
    for key, first, values in stream_json(labels, _slim):
        if not key:
            said = "is a list, not LVIS or COCO labels, which are an object of images and annotations"
            raise Wrong(said, path=labels)
        keys.append(key)
        if key in PARTS:
            builder.add(key, max(first, 0), values if first >= 0 else values[0])
    return builder.built(keys)


def _slashed(name: str) -> str:
    """A path as Windows writes it, as others do."""
    return name.replace("\\", "/")


def _slim(value: Any) -> Any:
    if type(value) is dict:
        for name in [name for name in value if name not in _ALL_KEPT]:
            del value[name]
    return value


@dataclass
class _Builder:
    """Columns of the chunks so far."""

    path: str | Path | None
    columns: dict[str, list[Any]] = field(default_factory=dict)
    lacks_lists: Wrong | None = None
    has_lists: bool = False
    images: int = 0

    def add(self, part: str, first: int, values: Any) -> None:
        """Check a chunk of one of the lists. Raises: Wrong for the first value that is not as it must be."""
        records = Records(values, self.path, PARTS[part], first, part)
        if len(records):
            {"images": self._images, "categories": self._categories, "annotations": self._annotations}[part](records)

    def _keep(self, name: str, column: Any) -> None:
        self.columns.setdefault(name, []).append(column)

    def _ids(self, records: Records, name: str, kept: str) -> None:
        column = records.ids(name)
        before = self.columns.get(kept)
        if before and before[0].dtype != column.dtype:
            said = "a text" if before[0].dtype == object else "an integer below 2**63"
            raise records.fault(0, name, f"must be {said}, not {shown(column.tolist()[0])}")
        self._keep(kept, column)

    def _images(self, records: Records) -> None:
        self._ids(records, "id", "image_ids")
        self._keep("sizes", np.stack([records.integers(side, minimum=1) for side in ("width", "height")], 1))
        urls = records.texts("coco_url", default="", empty=True)
        files = records.texts("file_name", default="", empty=True)
        # `coco_url` says which of COCO's folders; LVIS' val lies in train2017 too
        self._keep("pictures", [
            ("/".join(url.split("/")[-2:]),) * bool(url) + (name,) * bool(name) + (_slashed(name),) * ("\\" in name)
            for url, name in zip(urls, files, strict=True)
        ])  # fmt: skip
        some = any(name in one for one in records.values for name in LVIS_FIELDS)
        if some and self.lacks_lists:
            raise self.lacks_lists
        if some or self.has_lists:
            self.has_lists = True
            for name in LVIS_FIELDS:
                owner, ids = listed_ids(records, name)
                self._keep(name, (owner + self.images, ids))
        elif self.lacks_lists is None:
            present = ", ".join(map(str, records.values[0]))
            self.lacks_lists = Wrong(f"has no {LVIS_FIELDS[0]!r}; it has: {present}", path=self.path,
                                     place=records.place(0))  # fmt: skip
        self.images += len(records)

    def _categories(self, records: Records) -> None:
        self._ids(records, "id", "category_ids")
        names = records.texts("name")
        some = any("frequency" in one for one in records.values)
        frequency = records.texts("frequency") if some else [""] * len(names)
        for at, value in enumerate(frequency):
            if some and value not in FREQUENCIES:
                raise records.fault(at, "frequency", f"must be one of {', '.join(FREQUENCIES)}, not {shown(value)}")
        synonyms = records.lists("synonyms", default=())
        for at, own in enumerate(synonyms):
            if not all(type(name) is str for name in own):
                raise records.fault(at, "synonyms", f"must be a list of texts, not {shown(own)}")
        self._keep("categories", [
            {"name": n, "synonyms": s} | ({"frequency": f} if some else {})
            for n, s, f in zip(names, synonyms, frequency, strict=True)
        ])  # fmt: skip

    def _annotations(self, records: Records) -> None:
        for name, kept in (("id", "annotation_ids"), ("image_id", "image"), ("category_id", "category")):
            self._ids(records, name, kept)
        box = records.boxes("bbox")
        self._keep("box", box)
        absent = np.array(["area" not in one for one in records.values], bool)
        self._keep("area", np.where(absent, box[:, 2] * box[:, 3], records.numbers("area", 0.0)))
        self._keep("area_from_box", int(absent.sum()))
        self._keep("crowd", records.flags("iscrowd"))
        self._keep("ignore", records.flags("ignore"))

    def built(self, keys: Iterable[str]) -> BoxLabels:
        """The whole. Raises: Wrong for parts and ids that are not as they must be."""
        keys = list(keys)
        for part, first in (("images", "image_ids"), ("categories", "category_ids"), ("annotations", "box")):
            if part not in keys:
                there = ", ".join(map(str, keys)) or "nothing"
                raise Wrong(f"has no {part!r}, so it is not LVIS or COCO labels; it has: {there}", path=self.path)
            if first not in self.columns:
                raise Wrong(f"lists no {part}: nothing to score against", path=self.path)
        image_ids, by_image = self._sorted("image_ids", "image")
        category_ids, by_category = self._sorted("category_ids", "category")
        annotation_ids = self._joined("annotation_ids")
        self._unique(annotation_ids, "annotation")
        listed = [category for chunk in self.columns["categories"] for category in chunk]
        grouped = ["frequency" in category for category in listed]
        if any(grouped) and not all(grouped):
            at = grouped.index(False)
            raise Wrong("has no 'frequency', which others have", path=self.path, place=f"category {at}")
        protocol = Protocol.lvis if self.has_lists or any(grouped) else Protocol.coco
        if protocol == Protocol.lvis and not self.has_lists:
            assert self.lacks_lists is not None
            raise self.lacks_lists
        pictures = [names for chunk in self.columns["pictures"] for names in chunk]

        def found(name: str, ids: np.ndarray, what: str) -> np.ndarray:
            return positions(ids, self._joined(name), what, self._fault_of(annotation_ids, f"{name}_id"))

        place = np.empty(len(by_image), np.int64)
        place[by_image] = np.arange(len(by_image))
        lists = [self._listed(name, place, category_ids) if self.has_lists else None for name in LVIS_FIELDS]
        return BoxLabels(
            None if self.path is None else Path(self.path), protocol, image_ids, [pictures[i] for i in by_image],
            self._joined("sizes")[by_image].astype(np.float64), category_ids, tuple(listed[i] for i in by_category),
            annotation_ids, found("image", image_ids, "images"), found("category", category_ids, "categories"),
            self._joined("box"), self._joined("area"), sum(self.columns["area_from_box"]), self._joined("crowd"),
            self._joined("ignore"), lists[0], lists[1],
        )  # fmt: skip

    def _joined(self, name: str) -> np.ndarray:
        chunks = self.columns[name]
        if len(chunks) > 1:  # once: a column and its chunks are twice its memory
            self.columns[name] = [np.concatenate(chunks)]
        return self.columns[name][0]

    def _sorted(self, name: str, kind: str) -> Pairs:
        ids = self._joined(name)
        self._unique(ids, kind)
        order = np.argsort(ids, kind="stable")
        return ids[order], order

    def _unique(self, ids: np.ndarray, kind: str) -> None:
        listed = ids.tolist()
        if len(set(listed)) == len(listed):
            return
        seen: set[Any] = set()
        for at, value in enumerate(listed):
            if value in seen:
                raise Wrong(f"{shown(value)} occurs twice", path=self.path, field="id",
                            place=f"{kind} {at} (id {shown(value)})")  # fmt: skip
            seen.add(value)

    def _fault_of(self, ids: np.ndarray, name: str) -> Callable[[int, str], Wrong]:
        def fault(at: int, why: str) -> Wrong:
            place = f"annotation {at} (id {shown(ids.tolist()[at])})"
            return Wrong(why, path=self.path, place=place, field=name)

        return fault

    def _listed(self, name: str, place: np.ndarray, category_ids: np.ndarray) -> Pairs:
        chunks = self.columns[name]
        owner = np.concatenate([owner for owner, _ in chunks])
        ids = np.concatenate([ids for _, ids in chunks if len(ids)] or [np.empty(0, np.int64)])
        if not len(ids):
            return np.empty(0, np.int64), np.empty(0, np.int64)

        def fault(at: int, why: str) -> Wrong:
            own = self.columns["image_ids"][0].tolist()[int(owner[at])]
            where = f"image {int(owner[at])} (id {shown(own)})"
            return Wrong(why, path=self.path, place=where, field=name)

        return place[owner], positions(category_ids, ids, "categories", fault)
