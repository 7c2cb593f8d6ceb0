"""Can the detector learn at all? A handful of drawn scenes, trained on until it should find everything in them.

python -m benchmarks.experiments.detection_overfit
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from backbones import build_backbone
from backbones.grids import GridSchedule
from benchmarks.cli.errors import run_script
from benchmarks.engine.sweep import SweepResult, sweep
from benchmarks.engine.training.loop import finetune
from tasks.data.scenes import scenes_folder
from tasks.data.sets.holdout import held_out
from tasks.detection.adapter import Detection


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
    labels = json.loads((folder / "detection" / "train.json").read_text(encoding="utf-8"))
    # a tenth of train is minival: one more is named than is trained on
    images = sorted(labels["images"], key=lambda i: i["id"])[: scenes + 1]
    aside = held_out([i["file_name"] for i in images], 1 / len(images))
    ids = [i["id"] for i in images]
    for split, kept in (("train", ids), ("val", [i for i, held in zip(ids, aside, strict=True) if not held])):
        part = {
            **labels,
            "images": [i for i in labels["images"] if i["id"] in kept],
            "annotations": [a for a in labels["annotations"] if a["image_id"] in kept],
        }
        (folder / f"{split}.json").write_text(json.dumps(part), encoding="utf-8")
    return str(folder.relative_to(root))


def before_and_after(
    folder: str, options: Mapping[str, Any], recipe: argparse.Namespace, look: Callable[[Detection, SweepResult], Any]
) -> dict[str, Any]:
    """A detector trained at one grid by the real loop, and `look(task, sweep of val)` before and after.

    Args: recipe: `parser`'s arguments. They are repeated in what is returned, with `seconds` of training and some ten
        `losses` of it.
    """
    task = (Detection if recipe.augment else Whole)(folder, {
        "side": 120, "text": recipe.text, "train_prompts": "plain", "prompts": "plain", "mosaics": [1.0, 0.0, 0.0],
        **options,
    })  # fmt: skip
    torch.manual_seed(recipe.seed)
    model, steps = task.model(build_backbone(recipe.backbone)), recipe.steps
    changes = {"batch": recipe.batch, "lr": recipe.lr, "lr_groups": {"text": 1.0}, "warmup": steps // 10}
    task.recipe = dataclasses.replace(task.recipe, steps=steps, **changes)
    views = task.views([recipe.grid])
    found = {**vars(recipe), "threads": torch.get_num_threads()}
    found["before"] = look(task, sweep(task, model, views, "val"))
    begin = time.perf_counter()

    def progress(step: int, steps: int, rate: float, values: Mapping[str, float]) -> None:
        if step % max(1, steps // 10) == 0:
            text = f"  step {step}/{steps}, {rate:.1f} images/s, loss {values['loss']:.2f}"
            print(text, file=sys.stderr, flush=True)

    schedule = GridSchedule("fixed", ((recipe.grid, recipe.grid),))
    training = finetune(
        task, model, task.recipe, schedule, Accelerator(cpu=True), seed=recipe.seed, progress=progress
    )  # fmt: skip
    found["seconds"] = round(time.perf_counter() - begin, 1)
    found["losses"] = [round(v, 3) for v in training.losses[:: max(1, steps // 10)]]
    found["after"] = look(task, sweep(task, model.eval(), views, "val"))
    return found


def parser(name: str, doc: str, steps: int, augment: bool) -> argparse.ArgumentParser:
    """The arguments that the benchmarks of detection training share."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=doc.splitlines()[0])
    made.add_argument("--backbone", default="flexivit_nano")
    made.add_argument("--steps", type=int, default=steps)
    made.add_argument("--batch", type=int, default=4)
    made.add_argument("--grid", type=int, default=8)
    made.add_argument("--lr", type=float, default=1e-3)
    made.add_argument("--text", default="tiny", help="size of the text tower")
    made.add_argument("--augment", action=argparse.BooleanOptionalAction, default=augment, help="random crop and flip")
    made.add_argument("--seed", type=int, default=0)
    return made


def overfit(scenes: int, recipe: argparse.Namespace) -> dict[str, Any]:
    """LVIS numbers on the trained scenes before and after, and seconds of training.

    Example: `overfit(8, parser("detection_overfit", __doc__, 300, False).parse_args([]))["after"]["AP50"]`
    """
    with tempfile.TemporaryDirectory() as folder:
        return before_and_after(
            folder, {"data": handful(Path(folder), scenes)}, recipe, lambda task, seen: seen.rows[0][1]
        )  # fmt: skip


def main() -> None:
    made = parser("detection_overfit", __doc__, steps=300, augment=False)
    made.add_argument("--scenes", type=int, default=8)
    recipe = made.parse_args()
    print(json.dumps(overfit(recipe.scenes, recipe), indent=1))


if __name__ == "__main__":
    run_script(main)
