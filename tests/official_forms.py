"""Tiny pictures in the very forms in which the official data sets are downloaded."""

import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def picture(path: Path, size: tuple[int, int] = (64, 64), seed: int = 0, mode: str = "RGB") -> None:
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    low = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    low.convert(mode).save(path)


def tiny_imagenet(folder: Path, classes: int = 4, train: int = 5, val: int = 2) -> Path:
    root = folder / "tiny-imagenet-200"
    wnids = [f"n{i:08d}" for i in range(classes)]
    lines, seed = [], 0
    for c, wnid in enumerate(wnids):
        for i in range(train):
            seed += 1
            # grey pictures are in the official set too; the first of each class comes twice
            picture(root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", seed=seed, mode="L" if i == 2 else "RGB")
        first = root / "train" / wnid / "images" / f"{wnid}_0.JPEG"
        (first.parent / f"{wnid}_{train}.JPEG").write_bytes(first.read_bytes())
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("")
        for i in range(val):
            seed += 1
            name = f"val_{c * val + i}.JPEG"
            picture(root / "val" / "images" / name, seed=seed)
            lines.append(f"{name}\t{wnid}\t0\t0\t62\t62")
    (root / "wnids.txt").write_text("\n".join(reversed(wnids)) + "\n")
    (root / "words.txt").write_text("".join(f"{w}\tthing {i}, stuff\n" for i, w in enumerate(wnids)))
    (root / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    return root


def cars(folder: Path, classes: int = 6, each: int = 6) -> Path:
    from scipy.io import savemat

    root, rows = folder / "stanford_cars", []
    for i in range(classes * each):
        name = f"{i + 1:05d}.jpg"
        picture(root / "cars_train" / name, (300, 200) if i % 2 else (40, 30), seed=i)
        rows.append((1, 1, 20, 20, i % classes + 1, name))
    kinds = [(n, object) for n in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")]
    (root / "devkit").mkdir()
    savemat(root / "devkit" / "cars_train_annos.mat", {"annotations": np.array(rows, dtype=kinds)[None]})
    names = np.array([f"Maker Model {i}" for i in range(classes)], dtype=object)[None]
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": names})
    return root


def imagewoof(folder: Path, each: int = 3) -> Path:
    from benchmarks.prepare.classification import WOOF_CLASSES

    root, seed = folder / "imagewoof2", 0
    for split in ("train", "val"):
        for wnid in [*WOOF_CLASSES, "n02099601"]:
            for i in range(each):
                seed += 1
                picture(root / split / wnid / f"{wnid}_{i}.JPEG", (100, 80), seed=seed)
    return root


def voc(folder: Path, train: int = 4, val: int = 3) -> Path:
    root = folder / "VOCdevkit" / "VOC2012"
    ids = {"train": [f"2007_{i:06d}" for i in range(train)], "val": [f"2008_{i:06d}" for i in range(val)]}
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "SegmentationClass").mkdir()
    for split, names in ids.items():
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for i, name in enumerate(names):
            picture(root / "JPEGImages" / f"{name}.jpg", (500, 375), seed=i)
            labels = np.zeros((375, 500), np.uint8)
            labels[100:300, 100:300], labels[95:100, 95:305] = 1 + i, 255
            mask = Image.fromarray(labels, "P")
            mask.putpalette([v for c in range(256) for v in (c, 255 - c, c // 2)])
            mask.save(root / "SegmentationClass" / f"{name}.png")
    return root.parent


def camvid(folder: Path, sizes: dict[str, int]) -> Path:
    root = folder / "CamVid"
    for split, count in sizes.items():
        (root / f"{split}annot").mkdir(parents=True)
        for i in range(count):
            name = f"0001TP_{split}{i:03d}.png"
            picture(root / split / name, (480, 360), seed=i)
            labels = np.tile(np.arange(12, dtype=np.uint8).repeat(40), (360, 1))
            Image.fromarray(labels).save(root / f"{split}annot" / name)
    return root


def flickr8k(folder: Path, sizes: dict[str, int]) -> Path:
    root, tokens = folder / "flickr8k", ["2258277193_586949ec62.jpg.1#0\tnobody has this picture ."]
    for split, part in (("train", "train"), ("val", "dev"), ("test", "test")):
        names = [f"{i}_{split}.jpg" for i in range(sizes[split])]
        for i, name in enumerate(names):
            picture(root / "Flicker8k_Dataset" / name, (500, 333), seed=i)
            tokens += [f"{name}#{k}\tA {split} picture , number {i} , said {k} times ." for k in range(5)]
        (root / f"Flickr_8k.{part}Images.txt").write_text("\n".join(names) + "\n")
    (root / "Flickr8k.token.txt").write_text("\n".join(tokens) + "\n")
    return root


def coco(folder: Path, count: int = 8) -> Path:
    root = folder / "coco"
    images, annotations, captions = [], [], []
    for i in range(1, count + 1):
        name = f"{i * 7:012d}.jpg"
        picture(root / "val2017" / name, (640, 480), seed=i)
        images.append({
            "id": i * 7, "file_name": name, "width": 640, "height": 480, "license": 1, "date_captured": "2013-11-14",
            "coco_url": f"http://images.cocodataset.org/val2017/{name}", "flickr_url": "http://farm.example/1.jpg",
        })  # fmt: skip
        for k, category in enumerate((1, 1 + i % 3)):
            box = [10.0 + k, 20.0, 200.0, 100.5]
            annotations.append({
                "id": 100 * i + k, "image_id": i * 7, "category_id": category, "bbox": box, "area": 900.0,
                "iscrowd": 0, "segmentation": [[10, 20, 210, 20, 210, 120]],
            })  # fmt: skip
        captions += [{"id": 10 * i + k, "image_id": i * 7, "caption": f"Picture {i} told {k}\n"} for k in range(6)]
    crowd = {"id": 9999, "image_id": 7, "category_id": 3, "bbox": [0, 0, 640, 480], "area": 1.0, "iscrowd": 1}
    annotations.append(crowd | {"segmentation": {"counts": [], "size": [480, 640]}})
    categories = [{"id": c, "name": f"thing {c}", "supercategory": "things"} for c in (1, 2, 3, 90)]
    licences = [{"id": 1, "name": "some licence", "url": "http://example"}]
    (root / "annotations").mkdir()
    whole = {"images": images, "annotations": annotations, "categories": categories, "licenses": licences}
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(whole))
    (root / "annotations" / "captions_val2017.json").write_text(json.dumps({"images": images, "annotations": captions}))
    return root


def zipped(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(f"__MACOSX/{folder.name}/._x.txt", "")
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(path, path.relative_to(folder.parent))
    return target


def tarred(folder: Path, target: Path) -> Path:
    with tarfile.open(target, "w:gz") as archive:
        archive.add(folder, folder.name)
    return target
