"""Set cards: what is known of a data set, as YAML. A card is all that a set of a known layout needs."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pydantic
import yaml

from tasks.data.errors import Missing, Wrong, as_one_line, nearest, shown

CARDS = Path(__file__).parent / "sets" / "cards"
OWN = "sets"  # folder of a user's cards under the data root
KINDS = ("classes", "masks", "captions", "boxes", "landmarks")
Layout = Literal[
    "folders", "parquet", "saved", "imagenet", "torchvision", "sun397", "pairs", "karpathy", "coco", "flickr", "lvis",
    "revisited",
]  # fmt: skip
LAYOUTS: Mapping[str, tuple[str, ...]] = {
    "classes": ("folders", "parquet", "saved", "imagenet", "torchvision", "sun397"), "masks": ("pairs",),
    "captions": ("parquet", "karpathy", "coco", "flickr"), "boxes": ("lvis", "coco"), "landmarks": ("revisited",),
}  # fmt: skip


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)


class SplitCard(_Strict):
    """A split: how many pictures and labels (boxes) it must have, and where it lies where the form does not say it.

    `source`: where this split alone is to be had. `path`, `masks`, `list`: folder of pictures, folder of label maps,
    file of ids. `download`: what the split is called on disk.
    """

    pictures: int | None = None
    labels: int | None = None
    path: str = ""
    masks: str = ""
    list: str = ""
    download: str = ""
    source: str = ""
    usual: bool = True  # is the split asked for unless others are named?


class Form(_Strict):
    """Labels of one kind and where they lie, relative to the data root.

    `files`: file, folder or pattern, which may hold `{split}`. `images`: folder or pattern of tars of the pictures that
    labels name. `meta`: JSON beside the files that names the classes. `held_out`: the share of train that is minival,
    at most `held_out_most` pictures; 0 where nothing may be held out. `accepts`: the downloads that are read.
    """

    layout: Layout
    files: str = ""
    images: str = ""
    meta: str = ""
    splits: dict[str, SplitCard]
    held_out: float = pydantic.Field(default=0.1, ge=0, lt=1)
    held_out_most: int | None = None
    classes: tuple[str, ...] = ()
    class_count: int | None = None
    ignore_label: int = 255
    reduce_zero_label: bool = False
    image_suffixes: tuple[str, ...] = ()
    mask_suffixes: tuple[str, ...] = ()
    mask_values: dict[str, dict[int, int]] = {}  # suffix of masks -> stored value -> class; others are ignored
    mmseg: str = ""  # mmsegmentation's data set class
    drive: str = ""  # what the names of frames of one drive begin with, as a pattern; "": pictures are independent
    drive_block: int = 0  # so many successive frames of a drive are one independent sample; 0: the whole drive is
    negatives: str = ""  # file of categories known to be absent
    accepts: tuple[str, ...] = ()

    @pydantic.field_validator("splits", mode="before")
    @classmethod
    def _plain_sizes(cls, value: Any) -> Any:
        """`test: 980` is short for `test: {pictures: 980}`."""
        if not isinstance(value, dict):
            return value
        return {k: {"pictures": v} if v is None or isinstance(v, int) else v for k, v in value.items()}

    @pydantic.field_validator("classes", "image_suffixes", "mask_suffixes", "accepts", mode="before")
    @classmethod
    def _tuples(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    def sizes(self) -> dict[str, int | None]:
        """Pictures that each split must have; None where that is not fixed."""
        return {name: split.pictures for name, split in self.splits.items()}


class SetCard(_Strict):
    """A data set: what it is, where it is to be had, under which terms, and its labels by kind."""

    name: str
    title: str
    licence: str
    source: str
    citation: str = ""
    prepare: str = ""  # name for `run_all.py prepare`, where it is made out of a download
    drawn: bool = False  # drawn on first use, nothing to be had
    classes: Form | None = None
    masks: Form | None = None
    captions: Form | None = None
    boxes: Form | None = None
    landmarks: Form | None = None

    @pydantic.model_validator(mode="after")
    def _layouts(self) -> SetCard:
        kinds = [kind for kind in KINDS if getattr(self, kind) is not None]
        if not kinds:
            raise ValueError(f"has no labels; it needs one of: {', '.join(KINDS)}")
        for kind in kinds:
            layout = getattr(self, kind).layout
            if layout not in LAYOUTS[kind]:
                raise ValueError(f"{kind}.layout {layout!r} is none of {', '.join(LAYOUTS[kind])}")
        return self

    def form(self, kind: str) -> Form:
        """The labels of a kind.

        Raises: Wrong naming the kinds there are.
        """
        found = getattr(self, kind)
        if found is None:
            there = ", ".join(k for k in KINDS if getattr(self, k) is not None)
            raise Wrong(f"has no labels of the kind {kind!r}; it has: {there}", place=f"data {self.name!r}")
        return found

    @property
    def get_it(self) -> str:
        """What to do where the set is missing."""
        if self.prepare:
            return f"download {self.source}, then run_all.py prepare {self.prepare} --from PATH"
        return f"get it from {self.source}"


_READ: dict[str, SetCard] = {}  # a plan asks for few of the cards, and for those often


def known_cards() -> dict[str, SetCard]:
    """The cards that come with the software, by name, sorted."""
    return {path.stem: known_card(path.stem) for path in sorted(CARDS.glob("*.yaml"))}


def known_card(name: str) -> SetCard:
    """A card that comes with the software.

    Raises: KeyError for no such name.
    """
    if name not in _READ:
        path = CARDS / f"{name}.yaml"
        if name != Path(name).name or not path.is_file():
            raise KeyError(name)
        _READ[name] = read_card(path, _Fast)
    return _READ[name]


def check_name(name: str) -> None:
    """Raises: Wrong for what can be neither a set's name nor a path: nothing, unprintable characters, too long."""
    if not name.strip():
        raise Wrong("must be a set's name or a path, not nothing", place="data")
    if not name.isprintable():
        raise Wrong("has characters that cannot be printed: no name and no path", place=f"data {shown(name)}")
    if len(name.encode()) > 4000 or any(len(part.encode()) > 255 for part in Path(name).parts):
        raise Wrong("is too long for a name or a path", place=f"data {shown(name)}")


def find_card(name: str, kind: str, root: str | Path = ".") -> SetCard:
    """The card of a known set, of `sets/NAME.yaml` under the data root, or of a card's own path.

    Raises: Wrong naming the nearest sets that have labels of that kind.

    Example: `find_card("cars98", "classes").form("classes").sizes() == {"train": 2857, "test": 980}`
    """
    check_name(name)
    own = Path(root) / (name if name.endswith((".yaml", ".yml")) else f"{OWN}/{name}.yaml")
    if own.is_file():
        card = read_card(own)
        card.form(kind)
        return card
    if name.endswith((".yaml", ".yml")):
        raise Missing("no such set card", path=own)
    with contextlib.suppress(KeyError):
        card = known_card(name)
        if getattr(card, kind) is not None:
            return card
    known = {n: card for n, card in known_cards().items() if getattr(card, kind) is not None}
    near = nearest(name, known) or sorted(known)
    raise Wrong(f"is no data set with {kind} that is known; nearest: {', '.join(near)}", place=f"data {name!r}")


def read_card(path: Path, loader: type[yaml.SafeLoader] | None = None) -> SetCard:
    """A card out of its file.

    Args: loader: of YAML, of the safe ones; None: the one that no file can bring down.

    Raises: Wrong naming the file and the first field that is not what a card has.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), loader or _Loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or as_one_line(error, 200)
        raise Wrong(f"is not YAML: {what}", path=path, place=f"line {mark.line + 1}" if mark else "") from None
    if not isinstance(content, dict):
        raise Wrong("is no set card: it must hold names and values", path=path)
    try:
        return SetCard(**content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            model = SetCard if len(first["loc"]) == 1 else Form if len(first["loc"]) == 2 else SplitCard
            near = nearest(first["loc"][-1], model.model_fields) or sorted(model.model_fields)
            raise Wrong("is no field of a set card", path=path, field=field,
                        advice=f"nearest: {', '.join(near)}") from None  # fmt: skip
        raise Wrong(f"is not valid: {first['msg']}", path=path, field=field or "card") from None
    except TypeError as error:
        raise Wrong(f"is no set card: {error}", path=path) from None


class _Loader(yaml.SafeLoader):
    """A key that occurs twice is an error, not a lost value."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.constructor.ConstructorError(None, None, f"{twice!r} occurs twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # for cards that come with the software
