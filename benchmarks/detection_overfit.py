"""Can the detector learn at all? A handful of drawn scenes, trained on until it should find everything in them.

python -m benchmarks.detection_overfit
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from backbones import build_backbone
from backbones.grids import GridSchedule
from benchmarks.finetune import finetune
from benchmarks.sweep import sweep
from tasks.detection.task import Detection
from tasks.scenes import scenes_folder


class Whole(Detection):
    """Detection whose training pictures are whole and unflipped: random crops make of eight scenes an endless set."""

    def dataset(self, split: str) -> Any:
        data = super().dataset(split)
        if split == "train":
            data.augment = False
        return data


def handful(root: Path, scenes: int) -> str:
    """A detection set of the first training scenes, each of them trained on and looked at; its folder under `root`."""
    folder = scenes_folder(root)
    labels = json.loads((folder / "detection" / "train.json").read_text())
    # the first of every ten is minival: one more is named than is trained on
    ids = sorted(i["id"] for i in labels["images"])[: scenes + 1]
    for split, kept in (("train", ids), ("val", ids[1:])):
        part = {
            **labels,
            "images": [i for i in labels["images"] if i["id"] in kept],
            "annotations": [a for a in labels["annotations"] if a["image_id"] in kept],
        }
        (folder / f"{split}.json").write_text(json.dumps(part))
    return str(folder.relative_to(root))


def overfit(
    backbone: str, scenes: int, steps: int, batch: int, grid: int, lr: float, augment: bool = False, seed: int = 0
) -> dict[str, Any]:
    """AP50 before and after, and seconds of training; `augment`: with random crop and flip, as every real run.

    Example: `overfit("flexivit_nano", scenes=8, steps=300, batch=4, grid=8, lr=1e-3)["after"]["AP50"]`
    """
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "data": handful(Path(folder), scenes), "side": 120, "text": "tiny", "train_prompts": "plain",
            "prompts": "plain", "mosaics": [1.0, 0.0, 0.0],
        }  # fmt: skip
        task = (Detection if augment else Whole)(folder, options)
        torch.manual_seed(seed)
        model = task.model(build_backbone(backbone))
        changes = {"steps": steps, "batch": batch, "lr": lr, "lr_groups": {"text": 1.0}, "warmup": steps // 10}
        task.recipe = dataclasses.replace(task.recipe, **changes)
        views = task.views([grid])
        found = {"backbone": backbone, "scenes": scenes, "steps": steps, "batch": batch, "grid": grid, "lr": lr}
        found |= {"augment": augment, "seed": seed, "threads": torch.get_num_threads()}
        found["before"] = sweep(task, model, views, "val").rows[0][1]
        begin = time.perf_counter()
        schedule = GridSchedule("fixed", ((grid, grid),))
        training = finetune(task, model, task.recipe, schedule, Accelerator(cpu=True), seed=seed)
        found["seconds"] = round(time.perf_counter() - begin, 1)
        found["losses"] = [round(v, 3) for v in training.losses[:: max(1, steps // 10)]]
        found["after"] = sweep(task, model.eval(), views, "val").rows[0][1]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection_overfit", description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="flexivit_nano")
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--grid", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--augment", action=argparse.BooleanOptionalAction, default=False, help="random crop and flip")
    parser.add_argument("--seed", type=int, default=0)
    print(json.dumps(overfit(**vars(parser.parse_args())), indent=1))


if __name__ == "__main__":
    main()
