"""Pictures with captions from Karpathy JSON, parquet with image bytes, or COCO captions JSON."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contract import TaskError
from tasks.data.formats import read_columns, read_json
from tasks.data.scenes import SCENES, scenes_folder
from tasks.retrieval.images.files import folder_reader

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MINIVAL = 500  # images held out of train where a set has no val, at most a tenth of it
PROTOCOL_CAPTIONS = 5  # Karpathy's tables use the first five of an image


@dataclass(frozen=True)
class CaptionData:
    """Where a set lies under the data root and how large its splits must be (images; {} where nothing is fixed).

    `kind`: `parquet` (columns filename, image, captions), `karpathy` (one JSON with all splits) or `coco` (one captions
    JSON a split). `files` may hold `{split}`; `images` is a folder or a pattern of tars, read where it is no parquet.
    """

    kind: str
    files: str
    sizes: Mapping[str, int] = field(default_factory=dict)
    images: str = ""
    source: str = ""


DATA: dict[str, CaptionData] = {
    "flickr8k": CaptionData(
        "parquet", "retrieval/flickr8k_{split}_*.parquet", {"train": 4000, "val": 500, "test": 1000},
        source="run_all.py prepare flickr8k --from PATH (Flickr8k, Hodosh et al. 2013)",
    ),
    "coco_val2017_subset": CaptionData(
        "karpathy", "retrieval/dataset_coco_val2017_subset.json", {"train": 2022, "test": 800},
        "detection/images_*.tar",
        source="run_all.py prepare lvis_coco80 --from PATH (COCO val2017 with annotations)",
    ),
    "flickr30k": CaptionData(
        "karpathy", "flickr30k/dataset_flickr30k.json", {"train": 29000, "val": 1014, "test": 1000},
        "flickr30k/flickr30k-images",
        source="https://shannon.cs.illinois.edu/DenotationGraph/ and Karpathy's caption_datasets.zip",
    ),
    "coco": CaptionData(
        "karpathy", "coco/dataset_coco.json", {"train": 113287, "val": 5000, "test": 5000}, "coco",
        source="https://cocodataset.org (2014 images) and Karpathy's caption_datasets.zip",
    ),
    "coco2017": CaptionData(
        "coco", "coco/annotations/captions_{split}2017.json", {"train": 118287, "test": 5000}, "coco/{split}2017",
        source="https://cocodataset.org (2017 images and annotations)",
    ),
    "scenes": CaptionData(
        "karpathy", f"{SCENES}/captions.json", {"train": 320, "test": 80}, f"{SCENES}/images",
        source="drawn on the first run",
    ),
}  # fmt: skip
_COCO_SPLIT = {"test": "val"}  # COCO 2017 publishes no captions of its test pictures: its val is reported


@dataclass(frozen=True)
class CaptionSet:
    """One split: image i is `read(i)` (encoded bytes) and has `captions[i]`."""

    names: list[str]
    captions: list[list[str]]
    read: Callable[[int], bytes]

    def __len__(self) -> int:
        return len(self.names)

    def subset(self, keep: list[int]) -> CaptionSet:
        read = self.read
        return CaptionSet([self.names[i] for i in keep], [self.captions[i] for i in keep], lambda i: read(keep[i]))

    def fingerprint(self) -> str:
        """Hash of names and captions."""
        return hashlib.sha256(json.dumps([self.names, self.captions]).encode()).hexdigest()[:16]


def caption_data(name: str) -> CaptionData:
    """The set behind a name; a path to a Karpathy JSON means that file with the folder `images` beside it.

    Raises: TaskError naming the nearest known sets.
    """
    if name in DATA:
        return DATA[name]
    if name.endswith(".json"):
        return CaptionData("karpathy", name, {}, str(Path(name).parent / "images"), source="your own file")
    near = difflib.get_close_matches(name, DATA, 3, 0.4) or sorted(DATA)
    raise TaskError(f"no caption data {name!r}; nearest: {', '.join(near)}, or the path of a Karpathy .json")


def load_captions(root: str | Path, name: str, split: str, captions_per_image: int = PROTOCOL_CAPTIONS) -> CaptionSet:
    """Read a split; pictures stay encoded until asked for.

    Args:
        root: data root. name: key of `DATA` or path of a Karpathy JSON, relative to the root.
        split: train, minival, val or test. minival is the set's val; without one, pictures held out of train (and
            missing from train), the same on every machine.
        captions_per_image: the first so many captions of an image count; 0 keeps all.

    Raises: TaskError for missing files, splits that do not exist or have another size, images without caption,
    captions without image.

    Example: `len(load_captions("data", "flickr8k", "test"))` is 1000.
    """
    spec = caption_data(name)
    if name == "scenes":
        scenes_folder(Path(root))
    has_val = "val" in spec.sizes or (not spec.sizes and "val" in _karpathy_splits(Path(root), spec))
    wanted = split
    if split == "minival":
        wanted = "val" if has_val else "train"
    if spec.sizes and wanted not in spec.sizes:
        raise TaskError(f"{name} has no split {split!r}; it has: {', '.join([*spec.sizes, 'minival'])}")
    found = _READERS[spec.kind](Path(root), spec, wanted)
    if not len(found):
        raise TaskError(f"split {split!r} of {name} is empty")
    expected = spec.sizes.get(wanted)
    if expected is not None and len(found) != expected:
        raise TaskError(f"split {wanted!r} of {name} has {len(found)} images under {root}, it must have {expected}")
    for i, captions in enumerate(found.captions):
        if not any(c.strip() for c in captions):
            raise TaskError(f"image {found.names[i]!r} of {name} has no caption")
    if captions_per_image:
        found = CaptionSet(found.names, [c[:captions_per_image] for c in found.captions], found.read)
    if not has_val and split in ("train", "minival"):
        held = held_out(found.names)
        if not held:
            raise TaskError(f"train of {name} has {len(found)} images, too few to hold a minival out")
        found = found.subset([i for i in range(len(found)) if (i in held) == (split == "minival")])
    return found


def held_out(names: list[str]) -> set[int]:
    """Indices of minival: the names with the smallest SHA-256, a tenth of them and at most `MINIVAL`."""
    order = sorted(range(len(names)), key=lambda i: hashlib.sha256(names[i].encode()).digest())
    return set(order[: min(MINIVAL, len(names) // 10)])


def _files(root: Path, pattern: str, source: str) -> list[Path]:
    found = sorted(root.glob(pattern))
    if not found:
        raise TaskError(f"no {pattern} under {root}; get it from {source}")
    return found


def _parquet(root: Path, spec: CaptionData, split: str) -> CaptionSet:
    paths = _files(root, spec.files.format(split=split), spec.source)
    table = read_columns(paths, ("filename", "image", "captions"))
    images = table["image"]
    return CaptionSet(table["filename"].to_pylist(), table["captions"].to_pylist(), lambda i: images[i].as_py())


def _karpathy_splits(root: Path, spec: CaptionData) -> set[str]:
    return {i["split"] for i in _karpathy_images(_files(root, spec.files, spec.source)[0])}


def _karpathy_images(path: Path) -> list[dict[str, Any]]:
    content = read_json(path)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise TaskError(f"{path} has no list 'images': not a Karpathy JSON")
    for number, image in enumerate(images):
        if absent := [k for k in ("filename", "split", "sentences") if k not in image]:
            raise TaskError(f"{path}: image {number} has no {absent[0]!r}: not a Karpathy JSON")
    return images


def _karpathy(root: Path, spec: CaptionData, split: str) -> CaptionSet:
    path = _files(root, spec.files, spec.source)[0]
    images = _karpathy_images(path)
    wanted = {split, "restval"} if split == "train" else {split}  # COCO's restval counts as train in all tables
    chosen = [i for i in images if i["split"] in wanted]
    if not chosen:
        raise TaskError(f"{path} has no split {split!r}; it has: {', '.join(sorted({i['split'] for i in images}))}")
    names = [f"{i['filepath']}/{i['filename']}" if i.get("filepath") else i["filename"] for i in chosen]
    captions = [[s["raw"] for s in i["sentences"]] for i in chosen]
    return CaptionSet(names, captions, folder_reader(root, spec.images, names, spec.source))


def _coco(root: Path, spec: CaptionData, split: str) -> CaptionSet:
    official = _COCO_SPLIT.get(split, split)
    path = _files(root, spec.files.format(split=official), spec.source)[0]
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in ("images", "annotations")):
        raise TaskError(f"{path} has no lists 'images' and 'annotations': not COCO captions")
    captions: dict[int, list[str]] = {i["id"]: [] for i in content["images"]}
    for annotation in content["annotations"]:
        if annotation["image_id"] not in captions:
            raise TaskError(f"{path}: caption {annotation['id']} belongs to image {annotation['image_id']}, not there")
        captions[annotation["image_id"]].append(annotation["caption"])
    names = [i["file_name"] for i in content["images"]]
    read = folder_reader(root, spec.images.format(split=official), names, spec.source)
    return CaptionSet(names, [captions[i["id"]] for i in content["images"]], read)


_READERS = {"parquet": _parquet, "karpathy": _karpathy, "coco": _coco}


class CaptionDataset:
    """`dataset[i] -> (image uint8 [3, S, S], target)`.

    In training the target is int64 [context], the tokens of one caption: the first in `dataset[i]`, a random one in
    `dataset.sample(i, generator)`; one caption an image, so that no batch holds two right captions of a picture. In
    evaluation it is i.
    """

    def __init__(self, captions: CaptionSet, size: int, tokenize: Callable[[list[str]], Tensor] | None = None):
        self.set, self.size, self.tokenize = captions, size, tokenize

    def __len__(self) -> int:
        return len(self.set)

    def image(self, i: int) -> Tensor:
        from tasks.data.decoding import decode_square

        return decode_square(self.set.read(i), self.size, self.set.names[i])

    def __getitem__(self, i: int) -> tuple[Tensor, Any]:
        return self.image(i), i if self.tokenize is None else self.tokenize([self.set.captions[i][0]])[0]

    def sample(self, i: int, generator: torch.Generator) -> tuple[Tensor, Any]:
        return self.image(i), self.target(i, generator)

    def target(self, i: int, generator: torch.Generator) -> Any:
        """The target of `sample` without its picture."""
        if self.tokenize is None:
            return i
        import torch

        captions = self.set.captions[i]
        chosen = int(torch.randint(len(captions), (), generator=generator))
        return self.tokenize([captions[chosen]])[0]
