"""Small random labels and detections with all that makes scorers differ."""

import numpy as np

SIZE = (320, 240)


def boxes(rng: np.random.Generator, number: int, odd: float) -> list[list[float]]:
    """x, y, w, h; a share of `odd` reaches over an edge, lies outside, has no area or negative sides."""
    side = np.round(np.exp(rng.uniform(1, 5, (number, 2))), 1)
    corner = np.round(rng.uniform(-5, 1, (number, 2)) * 10 + rng.uniform(0, 1, (number, 2)) * SIZE, 1)
    found = np.concatenate([corner, side], 1)
    for box in found[rng.random(number) < odd]:
        kind = rng.integers(4)
        if kind == 0:
            box[:2] += SIZE
        elif kind == 1:
            box[2 + rng.integers(2)] = 0
        elif kind == 2:
            box[2 + rng.integers(2)] *= -1
        else:
            box[2:] *= -1
    spoiled = rng.random(number) < odd
    found[spoiled, 2:] *= rng.choice([0.0, -1.0, 1.0, 3.0], (int(spoiled.sum()), 2))
    return found.tolist()


def labels(seed: int, lvis: bool, texts: bool = False) -> dict:
    """Ids in no order, categories and images without boxes, odd areas; crowds (COCO), partial labels (LVIS)."""
    rng = np.random.default_rng(seed)
    images, categories = int(rng.integers(1, 5)), int(rng.integers(2, 5))
    numbers = rng.permutation(50) + int(rng.integers(0, 2))
    ids = [f"{n:02}.jpg" if texts else int(n) for n in numbers[:images]]
    kinds = [int(n) for n in rng.permutation(90)[:categories]]
    data = {"images": [], "categories": [], "annotations": []}
    for c, kind in enumerate(kinds):
        data["categories"].append({"id": kind, "name": f"c{c}"} | ({"frequency": "rcf"[c % 3]} if lvis else {}))
    for one in ids:
        image = {"id": one, "width": SIZE[0], "height": SIZE[1]}
        if lvis:
            image["neg_category_ids"] = [k for k in kinds if rng.random() < 0.4]
            image["not_exhaustive_category_ids"] = [k for k in kinds if rng.random() < 0.2]
        data["images"].append(image)
        for box in boxes(rng, int(rng.integers(0, 9)), 0.1):
            area = abs(box[2] * box[3]) * rng.uniform(0.4, 1)
            data["annotations"].append({
                "image_id": one, "category_id": int(rng.choice(kinds)), "bbox": box,
                "area": float(rng.choice([area, area, area, area, area, 0.0, -area, 32.0**2, 96.0**2])),
                **({} if lvis else {"iscrowd": int(rng.random() < 0.15)}),
                **({"ignore": int(rng.random() < 0.5)} if rng.random() < 0.2 else {}),
            })  # fmt: skip
    if not data["annotations"]:
        data["annotations"] = [{"image_id": ids[0], "category_id": kinds[0], "bbox": [1.0, 2, 30, 40], "area": 1200.0}]
    for i, annotation in zip(rng.permutation(len(data["annotations"])), data["annotations"], strict=True):
        annotation["id"] = int(i) + 1
    return data


def detections(seed: int, data: dict, many: int = 0) -> list[dict]:
    """Around the boxes and anywhere; scores of one or two digits, so that most of them tie.

    `many` in each image, for the limits of 100 of a category and 300 of an image.
    """
    rng = np.random.default_rng((seed, 1))
    kinds, found = [c["id"] for c in data["categories"]], []
    digits = int(rng.integers(1, 3))

    def add(image, kind, box):
        score = round(float(rng.random()), digits)
        found.append({"image_id": image, "category_id": kind, "bbox": box, "score": score})

    for one in data["annotations"]:
        for _ in range(int(rng.integers(0, 4))):
            spread = rng.choice([0.0, 0.03, 0.2])
            box = (np.array(one["bbox"]) + rng.normal(0, spread, 4) * np.abs(np.tile(one["bbox"][2:], 2))).tolist()
            add(one["image_id"], one["category_id"] if rng.random() < 0.8 else int(rng.choice(kinds)), box)
    for image in data["images"]:
        for box in boxes(rng, many if many else int(rng.integers(0, 12)), 0.1):
            add(image["id"], kinds[0] if many and rng.random() < 0.5 else int(rng.choice(kinds)), box)
    return [found[i] for i in rng.permutation(len(found))]
