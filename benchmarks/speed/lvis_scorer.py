"""Time and peak memory of the LVIS scorer against the official `lvis`, and of ten grids of a full-size validation set.

Run: `python -m benchmarks.speed.lvis_scorer [--images 2000] [--full]`; prints a table in markdown.
Each way runs in its own process, so that its peak memory is its own; both must give the same numbers to 1e-6.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np

from benchmarks.cli.errors import run_script
from tasks.detection.scoring.results import Detections

CATEGORIES, PER_IMAGE, SIDE, FULL, GRIDS = 1203, 300, 640, 19_809, 10


def labels(images: int) -> dict[str, Any]:
    """LVIS-like labels: some 12 boxes and up to 4 categories an image, 12 negatives, names as unequal as LVIS's."""
    rng = np.random.default_rng(0)
    weight = 1 / np.arange(1, CATEGORIES + 1)
    order = rng.permutation(CATEGORIES) + 1
    data: dict[str, Any] = {"images": [], "annotations": []}
    data["categories"] = [{"id": c, "name": f"c{c}", "frequency": "fcr"[c % 3]} for c in range(1, CATEGORIES + 1)]
    for i in range(images):
        chosen = rng.choice(order, 16, replace=False, p=weight / weight.sum()).tolist()
        data["images"].append({
            "id": i + 1, "width": SIDE, "height": SIDE, "neg_category_ids": chosen[4:],
            "not_exhaustive_category_ids": chosen[:1] if i % 5 == 0 else [],
        })  # fmt: skip
        for _ in range(int(rng.poisson(12))):
            size = np.exp(rng.uniform(1.5, 5.5, 2))
            corner = rng.uniform(0, 1, 2) * (SIDE - size)
            data["annotations"].append({
                "id": len(data["annotations"]) + 1, "image_id": i + 1, "category_id": chosen[int(rng.integers(0, 4))],
                "bbox": [*corner.tolist(), *size.tolist()], "area": float(size.prod() * 0.7),
            })  # fmt: skip
    return data


def detections(data: dict[str, Any], seed: int) -> Detections:
    """300 an image: each box found about eight times, more or less well, and the rest anywhere."""
    rng = np.random.default_rng(seed)
    boxes = data["annotations"]
    image = np.repeat(np.array([a["image_id"] for a in boxes]), 8)
    category = np.repeat(np.array([a["category_id"] for a in boxes]), 8)
    box = np.repeat(np.array([a["bbox"] for a in boxes]), 8, 0)
    box[:, :2] += rng.normal(0, 0.08, (len(box), 2)) * box[:, 2:]
    box[:, 2:] *= np.exp(rng.normal(0, 0.1, (len(box), 2)))
    fill = np.maximum(PER_IMAGE - np.bincount(image, minlength=len(data["images"]) + 1)[1:], 0)
    extra = np.repeat(np.arange(1, len(fill) + 1), fill)
    anywhere = np.concatenate([rng.uniform(0, SIDE - 200, (len(extra), 2)), rng.uniform(4, 200, (len(extra), 2))], 1)
    other = rng.integers(1, CATEGORIES + 1, len(extra))
    number = len(image) + len(extra)
    shuffled = rng.permutation(number)
    return Detections(
        np.r_[image, extra], np.r_[category, other], rng.random(number), np.r_[box, anywhere]
    ).cut(shuffled)  # fmt: skip


def run_way(way: str, images: int) -> dict[str, Any]:
    """Numbers, seconds and peak MiB of one way in this process. Making the data is not timed."""
    from tasks.data.boxes.protocols import Protocol
    from tasks.detection.scoring.files import score
    from tasks.detection.scoring.official import score_official

    data = labels(images)
    runs, seconds, numbers = GRIDS if way == "ten grids" else 1, 0.0, {}
    for seed in range(runs):
        found = detections(data, seed)
        start = time.perf_counter()
        numbers = score_official(found, data, Protocol.lvis) if way == "lvis" else score(found, data)
        seconds += time.perf_counter() - start
        del found
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # Linux: KiB
    return {"numbers": numbers, "seconds": seconds, "peak": peak}


def in_own_process(way: str, images: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.speed.lvis_scorer", "--way", way, "--images", str(images)]
    return json.loads(
        subprocess.run(
            command, check=True, capture_output=True, encoding="utf-8", errors="replace"
        ).stdout.splitlines()[-1]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--full", action="store_true", help=f"also {GRIDS} result sets of {FULL} images")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        print(json.dumps(run_way(args.way, args.images)))
        return
    here, theirs = (in_own_process(way, args.images) for way in ("here", "lvis"))
    gap = max(abs((here["numbers"][k] or 0) - (v or 0)) for k, v in theirs["numbers"].items())
    assert gap < 1e-6, f"the scorers differ by {gap}"
    rows = [("lvis", args.images, theirs), ("here", args.images, here)]
    if args.full:
        rows.append((f"here, {GRIDS} grids", FULL, in_own_process("ten grids", FULL)))
    print("# LVIS box AP against lvis\n")
    print(
        f"`python -m benchmarks.speed.lvis_scorer`, {datetime.date.today()}, {platform.machine()} {platform.system()}, "
        f"Python {platform.python_version()}, numpy {np.__version__}, lvis 0.5.3; synthetic labels, {CATEGORIES} "
        f"categories, {PER_IMAGE} detections an image; greatest difference of the ten numbers {gap:.1e}.\n"
    )
    print("| scorer | images | seconds | peak MiB | times faster |\n|---|---:|---:|---:|---:|")
    for name, images, found in rows:
        ratio = f"{theirs['seconds'] / found['seconds']:.1f}x" if images == args.images else "-"
        print(f"| {name} | {images} | {found['seconds']:.1f} | {found['peak']:.0f} | {ratio} |")


if __name__ == "__main__":
    run_script(main)
