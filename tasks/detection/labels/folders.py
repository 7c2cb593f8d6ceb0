"""Pictures and labels on disk: LVIS over COCO's folders, COCO JSON, the mini pack with its tars."""

from __future__ import annotations

import difflib
import functools
import hashlib
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contract import TaskError
from tasks.data.boxes.protocols import Protocol
from tasks.data.boxes.unusual import check_boxes
from tasks.data.scenes import scenes_folder
from tasks.detection.labels.annotations import Truth, read_labels, read_truth

if TYPE_CHECKING:
    from torch import Tensor

SOURCE = "https://www.lvisdataset.org/dataset and https://cocodataset.org/#download (train2017, val2017)"
SOURCES = {"lvis_coco80": "run_all.py prepare lvis_coco80 --from PATH (COCO val2017 with annotations)"}
# name -> folder under the data root, labels of each split
KNOWN: dict[str, tuple[str, dict[str, str]]] = {
    "lvis": ("lvis", {"train": "lvis_v1_train.json", "val": "lvis_v1_val.json"}),
    # `real`: 64 of val's pictures with true LVIS labels, 1,230 categories
    "lvis_coco80": (
        "detection",
        {"train": "lvis_coco80_train.json", "val": "lvis_coco80_val.json", "real": "lvis_v0.5_real_val_subset.json"},
    ),
    "lvis_real": ("detection", {"val": "lvis_v0.5_real_val_subset.json"}),
}
SCENES = {"train": "detection/train.json", "val": "detection/val.json"}  # in the folder of drawn scenes
SIDES = {"lvis_coco80": 240, "lvis_real": 240, "scenes": 120}  # pixels; 720 for others
# COCO lists every absent category; few of them imitate LVIS, whose images are each checked for a few
FEDERATED = {"lvis_coco80": "federated_neg_category_ids.json"}
HELD_OUT = 10  # every tenth training image is minival; none of LVIS, on which nothing is chosen


@functools.lru_cache(maxsize=4)
def tar_members(folder: Path) -> dict[str, tuple[Path, int, int]]:
    """Where each picture of a folder's tars lies: name -> (tar, offset, bytes). Tars are not unpacked."""
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            found |= {m.name: (path, m.offset_data, m.size) for m in tar if m.isfile()}
    return found


def picture_bytes(folder: Path, image: Mapping[str, Any]) -> bytes:
    """A picture of LVIS: `coco_url` says which COCO folder; else `file_name`, there, in `images/` or in a tar.

    Raises: TaskError naming where it was looked for.
    """
    names = []
    if url := image.get("coco_url"):
        names.append("/".join(url.split("/")[-2:]))
    if name := image.get("file_name"):
        names += [name, f"images/{name}"]
    for name in names:
        if (folder / name).is_file():
            return (folder / name).read_bytes()
    members = tar_members(folder)
    for name in names:
        if name in members:
            path, offset, size = members[name]
            with path.open("rb") as file:
                file.seek(offset)
                return file.read(size)
    raise TaskError(f"picture of image {image['id']} is missing under {folder}; looked for: {', '.join(names)}")


class DetectionSet:
    """Labels and pictures of a data set.

    Args: data: a known name, `scenes` (drawn on first use), or a folder under `root` with train.json and val.json in
        LVIS or COCO form.
    Raises: TaskError for an unknown set, missing labels, an unknown split.
    """

    def __init__(self, data: str, root: Path):
        self.data = data
        if data == "scenes":
            self.folder, self.files, self.source = scenes_folder(root), SCENES, ""
            return
        folder, self.files = KNOWN.get(data, (data, {"train": "train.json", "val": "val.json"}))
        self.folder, self.source = root / folder, SOURCES.get(data, SOURCE)
        if data not in KNOWN and not self.folder.is_dir():
            near = difflib.get_close_matches(data, [*KNOWN, "scenes"], 3, 0.4) or [*KNOWN, "scenes"]
            raise TaskError(f"no detection data {data!r} under {root}; nearest: {', '.join(near)}")

    def missing(self) -> list[str]:
        # `real` is a look at few pictures, which no suite asks for
        needed = [name for split, name in self.files.items() if split != "real"]
        absent = [self.path(f) for f in needed if not self.path(f).is_file()]
        return [f"{path} is missing; get it from {self.source}" for path in absent]

    def path(self, name: str) -> Path:
        return self.folder / name

    @functools.lru_cache(maxsize=4)  # noqa: B019  (one set lives as long as its task)
    def labels(self, split: str) -> dict[str, Any]:
        """Labels of a split: `train` without its every tenth image, `minival` those, the others whole."""
        source = "train" if split == "minival" else split
        if source not in self.files:
            raise TaskError(f"no split {split!r}; there are: {', '.join(self.files)}")
        path = self.path(self.files[source])
        data = read_labels(path)
        if not isinstance(data, dict) or not all(isinstance(data.get(k), list) for k in ("images", "annotations")):
            raise TaskError(f"{path} has no lists 'images' and 'annotations': not LVIS or COCO JSON")
        if source != "train":
            return data
        ids = sorted(i["id"] for i in data["images"])
        held = set() if self.data == "lvis" else set(ids[::HELD_OUT])
        chosen = held if split == "minival" else set(ids) - held
        return {
            **data,
            "images": [i for i in data["images"] if i["id"] in chosen],
            "annotations": [a for a in data["annotations"] if a["image_id"] in chosen],
        }

    @functools.lru_cache(maxsize=4)  # noqa: B019
    def truth(self, split: str) -> Truth:
        """Labels by LVIS' rules, whatever their form.

        Raises: Wrong as `read_truth`, and for boxes of a negative side or outside their image.
        """
        path = self.path(self.files["train" if split == "minival" else split])
        truth = read_truth(self.labels(split), Protocol.lvis, path)
        check_boxes(truth.box, truth.sizes[truth.image], f"{path}: annotation")
        return truth

    def fingerprint(self) -> str:
        """Of the label files' contents."""
        digest = hashlib.sha256()
        for name in sorted(self.files.values()):
            if self.path(name).is_file():
                digest.update(name.encode() + self.path(name).read_bytes())
        return digest.hexdigest()[:16]


class DetectionData:
    """Pictures padded to `side`; targets hold `size` int64 [2], height and width in pixels. Ordered by image id."""

    def __init__(self, found: DetectionSet, split: str, side: int, pad: float = 0.5):
        self.folder, self.side, self.pad = found.folder, side, pad
        self.images = sorted(found.labels(split)["images"], key=lambda i: i["id"])

    def __len__(self) -> int:
        return len(self.images)

    def picture(self, index: int) -> Tensor:
        """uint8 [3, h, w], as its labels see it.

        Raises: TaskError for a picture that is missing, torn, or of another size than its labels say.
        """
        entry = self.images[index]
        from tasks.data.decoding import decode

        picture = decode(picture_bytes(self.folder, entry), f"picture of image {entry['id']}")
        size, told = tuple(picture.shape[1:]), (entry["height"], entry["width"])
        if size != told:
            # labels of another resolution would give a low AP and no error
            raise TaskError(
                f"picture of image {entry['id']} is {size[1]}x{size[0]} px, its labels are for {told[1]}x{told[0]}"
            )
        return picture

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        import torch

        from tasks.detection.boxes import pad_square

        picture = self.picture(index)
        return pad_square(picture, self.side, self.pad)[0], {"size": torch.tensor(picture.shape[1:])}
