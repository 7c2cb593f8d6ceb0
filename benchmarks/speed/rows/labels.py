"""Memory of detection labels: the file as JSON holds it, beside what is kept of it, in processes of their own.

    python -m benchmarks.speed.rows.labels --boxes 50000

Labels are drawn in LVIS' form, polygons included. Prints a markdown row: MiB of memory over that of the same process
before, at the peak of reading, while the labels are kept, and after they are dropped.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.cli.errors import run_script

POINTS = 30  # of a polygon; LVIS' have some forty numbers
BOXES = 13  # of a picture, as in LVIS
WAYS = {"whole file": "json", "columns": "columns"}
MEASURED = """
import ctypes, gc, json, resource, sys
from tasks.data.boxes.columns import read_box_labels

def now():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20

def peak():
    with open("/proc/self/status") as file:  # getrusage's would be the parent's where that is larger
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))

gc.collect()
before = now()
if sys.argv[1] == "json":
    with open(sys.argv[2]) as file:
        labels = json.load(file)
else:
    labels = read_box_labels(sys.argv[2])
most, kept = peak() - before, now() - before
del labels
gc.collect()
ctypes.CDLL(None).malloc_trim(0)
print(json.dumps([most, kept, now() - before]))
"""
HEAD = ("boxes", "file, MiB", "held as", "peak of reading, MiB", "kept, MiB", "of the file", "after dropping, MiB")


def write_labels(path: Path, boxes: int) -> float:
    """Labels of that many boxes, drawn; MiB of the file."""
    drawn, pictures = random.Random(0), -(-boxes // BOXES)
    categories = [{"id": i + 1, "name": f"thing {i}", "synset": f"thing.n.{i}", "frequency": "f"} for i in range(1203)]
    images = [
        {
            "id": i + 1, "width": 640, "height": 480, "coco_url": f"http://images.cocodataset.org/val2017/{i:012}.jpg",
            "neg_category_ids": drawn.sample(range(601, 1204), 8), "not_exhaustive_category_ids": [],
        }
        for i in range(pictures)
    ]  # fmt: skip
    annotations = []
    for i in range(boxes):
        x, y = round(drawn.uniform(0, 600), 2), round(drawn.uniform(0, 440), 2)
        polygon = [round(drawn.uniform(0, 40), 2) for _ in range(2 * POINTS)]
        annotations.append({
            "id": i + 1, "image_id": i // BOXES + 1, "category_id": drawn.randint(1, 600), "bbox": [x, y, 39.5, 39.25],
            "area": round(drawn.uniform(1, 1500), 2), "segmentation": [polygon],
        })  # fmt: skip
    path.write_text(
        json.dumps({"images": images, "categories": categories, "annotations": annotations}), encoding="utf-8"
    )
    return path.stat().st_size / 2**20


def measured(way: str, path: Path) -> list[float]:
    """MiB at the peak, kept, and after dropping.

    Raises: subprocess.CalledProcessError where the labels cannot be read.
    """
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, way, str(path)], cwd=Path(__file__).parents[3], check=True,
        stdout=subprocess.PIPE, encoding="utf-8",
    )  # fmt: skip
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, nargs="+", default=[50_000])
    options = parser.parse_args()
    print(f"| {' | '.join(HEAD)} |\n|{' ---: |' * len(HEAD)}")
    with tempfile.TemporaryDirectory() as folder:
        for boxes in options.boxes:
            path = Path(folder) / "labels.json"
            size = write_labels(path, boxes)
            for told, way in WAYS.items():
                most, kept, after = measured(way, path)
                cells = [f"{boxes:,}", f"{size:.0f}", told, f"{most:.0f}", f"{kept:.1f}", f"{kept / size:.2f}x"]
                print(f"| {' | '.join(cells)} | {after:.1f} |", flush=True)


if __name__ == "__main__":
    run_script(main)
