"""One pass for all grids against a pass for each, on JPEG files: same metrics, and the time ratio.

python -m benchmarks.speed.one_pass --backbone flexivit_nano --images 256
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from backbones import build_backbone
from backbones.grids import NANO_GRIDS, PAPER_GRIDS
from benchmarks.cli.errors import run_script
from benchmarks.engine.sweep import sweep
from tasks import build_task


def write_pictures(folder: Path, count: int, side: int) -> None:
    """An ImageFolder of two classes of JPEG files, smooth noise of `side` x 4/3 `side` pixels."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in ("a", "b"):
            (folder / split / label).mkdir(parents=True)
            for i in range(count // 2 if split == "test" else 2):
                small = rng.integers(0, 256, (side // 8, side // 6, 3), np.uint8)
                picture = Image.fromarray(small).resize((side * 4 // 3, side), Image.Resampling.BICUBIC)
                picture.save(folder / split / label / f"{i:05d}.jpg", quality=90)


def compare(backbone: str, images: int, picture_side: int, device: str, batch: int) -> dict:
    """Seconds of one pass and of separate passes, after a warm pass; raises AssertionError where metrics differ."""
    encoder = build_backbone(backbone, pretrained=False)
    side = encoder.image_size[0]
    grids = NANO_GRIDS if side == 120 else PAPER_GRIDS
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder) / "set", images, picture_side)

        def passes(groups: list[list[int]]) -> tuple[float, list[dict[str, float]]]:
            begin, found = time.perf_counter(), []
            for group in groups:
                # built anew, so that nothing decoded is remembered from the pass before
                task = build_task("classification", folder, {"data": "set/", "image_size": side})
                torch.manual_seed(0)
                model = task.model(encoder)
                torch.nn.init.normal_(model.head.weight)
                model.to(device)
                found += [
                    m for _, m, _ in sweep(task, model, task.views(group), "test", device=device, batch=batch).rows
                ]
            return time.perf_counter() - begin, found

        passes([list(grids)[:1]])
        together, one = passes([list(grids)])
        apart, separate = passes([[g] for g in grids])
    assert one == separate, "one pass and separate passes must agree exactly"
    return {
        "backbone": backbone, "grids": list(grids), "images": images, "picture_side": picture_side, "device": device,
        "batch": batch, "one_pass_s": round(together, 2), "separate_s": round(apart, 2),
        "ratio": round(apart / together, 2), "threads": torch.get_num_threads(), "torch": torch.__version__,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.one_pass", description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="flexivit_nano")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--picture-side", type=int, default=375, help="shorter side of the JPEG files")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    found = compare(options.backbone, options.images, options.picture_side, options.device, options.batch)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    run_script(main)
