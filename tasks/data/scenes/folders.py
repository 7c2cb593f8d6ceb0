"""Writes the scenes: class folders, the ADE layout of masks, Karpathy's captions, LVIS boxes; one set of pictures."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tasks.data.errors import DataError, Wrong
from tasks.data.scenes.draw import COLOURS, SHAPES, SIDE, Scene, draw_scene, draw_swarm

VERSION = 2  # raise it when a pixel or a label may change; the folder is named by it
SCENES = f"demo/scenes_v{VERSION}"  # under the data root
ELSEWHERE = "choose another --data-root"
SWARMS = {"train": 80, "test": 40}  # pictures a shape
SPLITS = {"train": 320, "val": 80}  # scenes
FOLDERS = {"train": "training", "val": "validation"}
KARPATHY = {"train": "train", "val": "test"}
# combinations that no training scene shows: what an open vocabulary is for
RARE = frozenset({("red", "ring"), ("green", "triangle"), ("blue", "cross"), ("yellow", "frame"), ("purple", "disc"),
                  ("white", "square")})  # fmt: skip
PAIRS = tuple(itertools.product(COLOURS, SHAPES))
FREQUENT = 40  # training scenes from which a category is "f"; below it is "c"


def scenes_folder(root: Path) -> Path:
    """The folder of the scenes under the data root; drawn on the first call (seconds), whole or not at all.

    It holds `classification/{train,test}/SHAPE/`, `images/` and `annotations/{training,validation}/` with `meta.json`
    (label = colour), `captions.json` (Karpathy) and `detection/{train,val}.json` (LVIS v1, category = colour and
    shape; the six of `RARE` are in val only).

    Raises: Wrong where the data root cannot be written to.

    Example: `scenes_folder(Path("data")) / "detection" / "val.json"`
    """
    folder = Path(root) / SCENES
    if folder.is_dir():
        return folder
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        _swarms(partial / "classification")
        _scenes(partial)
        partial.rename(folder)
    except OSError as error:
        if folder.is_dir():  # another runner was faster
            return folder
        raise Wrong(f"the demo's pictures cannot be drawn: {error}", path=folder, advice=ELSEWHERE) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def undrawable(root: Path) -> list[DataError]:
    """Why `scenes_folder` would fail: no folder is there, and none can be made. Nothing is drawn, nothing stays behind.

    Example: `undrawable(Path("data")) == []`
    """
    folder = Path(root) / SCENES
    if folder.is_dir():
        return []
    above = next((p for p in folder.parents if p.exists()), Path("."))
    try:
        with tempfile.TemporaryDirectory(prefix=".probe", dir=above):  # permissions alone know no quota or file system
            return []
    except OSError as error:
        why = f"{error.strerror or error}: {above}"
        return [Wrong(f"the demo's pictures cannot be drawn: {why}", path=folder, advice=ELSEWHERE)]


def _swarms(folder: Path) -> None:
    for (number, (split, count)), (kind, shape) in itertools.product(enumerate(SWARMS.items()), enumerate(SHAPES)):
        place = folder / split / shape
        place.mkdir(parents=True)
        for i in range(count):
            rng = np.random.default_rng((VERSION, 0, number, kind, i))
            Image.fromarray(draw_swarm(rng, shape)).save(place / f"{i:03d}.png")


def _names(rng: np.random.Generator, split: str) -> list[tuple[str, str]]:
    """Two to five things; half of the validation scenes show one rare combination."""
    common = [p for p in PAIRS if p not in RARE]
    names = [common[i] for i in rng.choice(len(common), int(rng.integers(2, 6)), replace=False)]
    if split == "val" and rng.random() < 0.5:
        names[0] = sorted(RARE)[int(rng.integers(len(RARE)))]
    return names


def caption(rng: np.random.Generator, scene: Scene) -> str:
    """A sentence about two neighbours in the scene, from left to right or from top to bottom.

    Example: `"a red ring to the left of a white disc"`
    """
    a, b = (scene.things[i] for i in rng.choice(len(scene.things), 2, replace=False))
    ahead = [(t.box[0] + t.box[2] / 2, t.box[1] + t.box[3] / 2) for t in (a, b)]
    sideways = abs(ahead[0][0] - ahead[1][0]) >= abs(ahead[0][1] - ahead[1][1])
    if ahead[0][0 if sideways else 1] > ahead[1][0 if sideways else 1]:
        a, b = b, a
    return f"a {a.name} {'to the left of' if sideways else 'above'} a {b.name}"


def _scenes(folder: Path) -> None:
    captions: list[dict[str, Any]] = []
    drawn: dict[str, list[Scene]] = {}
    for number, (split, count) in enumerate(SPLITS.items()):
        drawn[split] = []
        for kind in ("images", "annotations"):
            (folder / kind / FOLDERS[split]).mkdir(parents=True)
        for i in range(count):
            rng = np.random.default_rng((VERSION, 1, number, i))
            scene = draw_scene(rng, _names(rng, split))
            drawn[split].append(scene)
            Image.fromarray(scene.image).save(folder / "images" / FOLDERS[split] / f"{i:04d}.jpg", quality=95)
            Image.fromarray(_labels(scene)).save(folder / "annotations" / FOLDERS[split] / f"{i:04d}.png")
            sentences = [{"raw": caption(rng, scene)} for _ in range(5)]
            captions.append({
                "filepath": FOLDERS[split], "filename": f"{i:04d}.jpg", "split": KARPATHY[split],
                "imgid": len(captions), "sentences": sentences,
            })  # fmt: skip
    _write(folder / "captions.json", {"dataset": "scenes", "images": captions})
    classes = ["ground", *COLOURS]
    _write(folder / "meta.json", {"class_names": classes, "ignore_label": 255, "reduce_zero_label": False})
    (folder / "detection").mkdir()
    for split, label in _lvis(drawn).items():
        _write(folder / "detection" / f"{split}.json", label)


def _labels(scene: Scene) -> np.ndarray:
    """uint8 [120, 120]: 0 is the ground, then the colours in order."""
    found = np.zeros((SIDE, SIDE), np.uint8)
    for thing in scene.things:
        found[thing.mask] = 1 + list(COLOURS).index(thing.colour)
    return found


def _lvis(drawn: dict[str, list[Scene]]) -> dict[str, dict[str, Any]]:
    """Labels of each split in LVIS v1's form; every scene is labelled exhaustively."""
    shown = {p: sum(any((t.colour, t.shape) == p for t in s.things) for s in drawn["train"]) for p in PAIRS}
    categories = [
        {
            "id": i, "name": f"{c}_{s}", "synonyms": [f"{c}_{s}"], "synset": f"{c}_{s}.n.01", "def": f"a {c} {s}",
            "frequency": _frequency(shown[c, s]), "image_count": shown[c, s], "instance_count": shown[c, s],
        }
        for i, (c, s) in enumerate(PAIRS, 1)
    ]  # fmt: skip
    found = {}
    for split, scenes in drawn.items():
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for i, scene in enumerate(scenes, 1):
            present = {PAIRS.index((t.colour, t.shape)) + 1 for t in scene.things}
            images.append({
                "id": i, "file_name": f"images/{FOLDERS[split]}/{i - 1:04d}.jpg", "height": SIDE, "width": SIDE,
                "neg_category_ids": [n for n in range(1, len(PAIRS) + 1) if n not in present],
                "not_exhaustive_category_ids": [],
            })  # fmt: skip
            for thing in scene.things:
                x, y, w, h = thing.box
                annotations.append({
                    "id": len(annotations) + 1, "image_id": i, "bbox": [x, y, w, h], "area": float(thing.mask.sum()),
                    "category_id": PAIRS.index((thing.colour, thing.shape)) + 1,
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                })  # fmt: skip
        found[split] = {"images": images, "annotations": annotations, "categories": categories}
    return found


def _frequency(scenes: int) -> str:
    return "r" if not scenes else "f" if scenes >= FREQUENT else "c"


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
