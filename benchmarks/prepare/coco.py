"""COCO val2017: boxes in LVIS v1 form and captions in Karpathy's, on one set of pictures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.prepare.downloads import Download, check_name
from benchmarks.prepare.packing import counted, encoded, rgb, shrunk, write_json, write_tars
from tasks.contract import TaskError

Say = Callable[[str], None]
SIZES = {"train": 2022, "val": 800}
LONG_SIDE, QUALITY, CAPTIONS, NEGATIVES = 320, 70, 5, 8
INFO = {
    "description": "COCO val2017 subset (80 classes) written in LVIS v1 JSON form; boxes only, segmentation is the box "
    "outline; coordinates are of the resized image",
    "version": "1", "year": 2017,
}  # fmt: skip
_KEPT = ("coco_url", "flickr_url", "license", "date_captured")


def coco(download: Download, out: Path, sizes: Mapping[str, int], say: Say) -> None:
    """Pictures with boxes and five captions, the longer side at most 320 px, WebP 70; train and val by their hashes.

    Crowd regions are no boxes: their category is "not exhaustive" in that picture. All coordinates are of the shrunken
    pictures.

    Raises: TaskError for another layout, JSON that is none, too few pictures.
    """
    instances = _json(download.find("instances_val2017.json"), ("images", "annotations", "categories"))
    sentences = _json(download.find("captions_val2017.json"), ("annotations",))
    pictures = download.find("val2017")
    boxes: dict[int, list[dict[str, Any]]] = {}
    crowds: dict[int, set[int]] = {}
    for one in instances["annotations"]:
        if one.get("iscrowd"):
            crowds.setdefault(one["image_id"], set()).add(one["category_id"])
        elif min(one["bbox"][2:]) > 0:
            boxes.setdefault(one["image_id"], []).append(one)
    captions: dict[int, list[str]] = {}
    for one in sorted(sentences["annotations"], key=lambda a: a["id"]):
        captions.setdefault(one["image_id"], []).append(" ".join(one["caption"].split()))
    usable = [i for i in instances["images"] if i["id"] in boxes and len(captions.get(i["id"], ())) >= CAPTIONS]
    if len(usable) < sum(sizes.values()):
        raise TaskError(f"{len(usable)} pictures have boxes and {CAPTIONS} captions, {sum(sizes.values())} are needed")
    # by a hash of the id, as everywhere: no list need be kept and no seed matters
    order = sorted(usable, key=lambda i: hashlib.sha256(str(i["id"]).encode()).hexdigest())
    chosen = {"val": order[: sizes["val"]], "train": order[sizes["val"] : sum(sizes.values())]}
    images: dict[str, list[dict[str, Any]]] = {}
    for split in ("train", "val"):
        images[split] = []
        found = sorted(chosen[split], key=lambda i: i["id"])
        write_tars(out / "detection", f"images_{split}", _members(pictures, found, split, images[split], say))
    _write_labels(out / "detection", instances, images, boxes, crowds)
    _write_captions(out / "retrieval", images, captions)


def _json(path: Path, parts: tuple[str, ...]) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise TaskError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict) or (absent := [p for p in parts if not isinstance(found.get(p), list)]):
        raise TaskError(f"{path} has no list {parts[0] if not isinstance(found, dict) else absent[0]!r}")
    return found


def _members(
    pictures: Path, found: list[dict[str, Any]], split: str, images: list[dict[str, Any]], say: Say
) -> Iterator[tuple[str, bytes]]:
    """Shrunken pictures; `images` is filled with their entries."""
    for entry in counted(found, f"coco {split}", say):
        source = pictures / check_name(entry["file_name"], "instances_val2017.json")
        image = rgb(source)
        if image.size != (entry["width"], entry["height"]):
            raise TaskError(f"{source} is {image.size} px, its labels are for {entry['width']}x{entry['height']}")
        small = shrunk(image, long=LONG_SIDE)
        name = f"{Path(entry['file_name']).stem}.webp"
        images.append({
            "id": entry["id"], "file_name": name, "width": small.width, "height": small.height,
            "orig_width": image.width, "orig_height": image.height, **{k: entry[k] for k in _KEPT if k in entry},
        })  # fmt: skip
        yield f"images/{name}", encoded(small, "WEBP", QUALITY)


def _write_labels(
    folder: Path,
    instances: dict[str, Any],
    images: dict[str, list[dict[str, Any]]],
    boxes: Mapping[int, list[dict[str, Any]]],
    crowds: Mapping[int, set[int]],
) -> None:
    ids = sorted(c["id"] for c in instances["categories"])
    shown = {c: [len([b for b in boxes[i["id"]] if b["category_id"] == c]) for i in images["train"]] for c in ids}
    categories = [
        {
            "id": c["id"], "name": c["name"], "synonyms": [c["name"]], "synset": f"{c['name'].replace(' ', '_')}.n.00",
            "def": f"COCO category, supercategory {c.get('supercategory', '')}",
            "frequency": _frequency(sum(n > 0 for n in shown[c["id"]])),
            "image_count": sum(n > 0 for n in shown[c["id"]]), "instance_count": sum(shown[c["id"]]),
        }
        for c in sorted(instances["categories"], key=lambda c: c["id"])
    ]  # fmt: skip
    number, federated = 0, {}
    for split, entries in images.items():
        annotations = []
        for entry in entries:
            own, crowded = boxes[entry["id"]], crowds.get(entry["id"], set())
            present = {b["category_id"] for b in own}
            negative = [c for c in ids if c not in present and c not in crowded]
            entry |= {"neg_category_ids": negative, "not_exhaustive_category_ids": sorted(crowded)}
            few = sorted(negative, key=lambda c: hashlib.sha256(f"{entry['id']}/{c}".encode()).hexdigest())[:NEGATIVES]
            federated[f"{entry['id']:012d}"] = sorted(few)
            for box in own:
                number += 1
                annotations.append(_annotation(number, entry, box))
        write_json(folder / f"lvis_coco80_{split}.json", {
            "info": INFO, "licenses": instances.get("licenses", []), "categories": categories, "images": entries,
            "annotations": annotations,
        })  # fmt: skip
    write_json(folder / "federated_neg_category_ids.json", dict(sorted(federated.items())))


def _frequency(images: int) -> str:
    """LVIS: r at most 10 training images, c at most 100."""
    return "r" if images <= 10 else "c" if images <= 100 else "f"


def _annotation(number: int, entry: dict[str, Any], box: dict[str, Any]) -> dict[str, Any]:
    across, down = entry["width"] / entry["orig_width"], entry["height"] / entry["orig_height"]
    x, y, w, h = (round(v * s, 2) for v, s in zip(box["bbox"], (across, down, across, down), strict=True))
    return {
        "id": number, "image_id": entry["id"], "category_id": box["category_id"], "bbox": [x, y, w, h],
        "area": round(w * h, 2), "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
    }  # fmt: skip


def _write_captions(folder: Path, images: dict[str, list[dict[str, Any]]], captions: Mapping[int, list[str]]) -> None:
    entries: list[dict[str, Any]] = []
    for split, found in images.items():
        for image in found:
            number = len(entries)
            texts = captions[image["id"]][:CAPTIONS]
            ids = list(range(number * CAPTIONS, number * CAPTIONS + len(texts)))
            entries.append({
                "filename": image["file_name"], "cocoid": image["id"], "imgid": number,
                "split": "test" if split == "val" else split, "sentids": ids,
                "sentences": [{"raw": t, "sentid": i, "imgid": number} for t, i in zip(texts, ids, strict=True)],
            })  # fmt: skip
    write_json(folder / "dataset_coco_val2017_subset.json", {"dataset": "coco_val2017_subset", "images": entries})
