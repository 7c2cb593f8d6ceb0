"""Shared by the tests of the runner: a suite of toy cells, written and run."""

import sys
from pathlib import Path

import torch
import yaml
from accelerate import Accelerator

from backbones import build_backbone
from backbones.grids import parse_schedule
from benchmarks.engine.runner import Runner, RunOptions
from benchmarks.engine.suite import load_suite
from benchmarks.engine.training.loop import Training, finetune
from benchmarks.store import Store
from tasks.contract import Recipe

PLUGIN = Path(__file__).parent / "plugin"
if str(PLUGIN) not in sys.path:
    sys.path.insert(0, str(PLUGIN))

SUITE = {
    "name": "toy", "backbones": ["tiny_backbone:tiny"], "train": [4], "eval": [2, 4, 6],
    "tasks": [{"task": "toy", "recipe": {"steps": 12, "drop_path": 0.1}, "options": {"noise": 0.1}}],
}  # fmt: skip


def write_suite(folder: Path, **changes: object) -> str:
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump({**SUITE, **changes}))
    return str(path)


def first_steps(precision: str = "no", **recipe: object) -> Training:
    """Three steps of a nano from scratch at grid 4, as a recipe with these values takes them."""
    from flexivit_toy import Toy  # of the folder that was put on the path above

    torch.manual_seed(0)
    task = Toy()
    model = task.model(build_backbone("vit_nano_g8", pretrained=False))
    asked = Recipe(steps=3, batch=4, lr=0.01, **recipe)
    return finetune(task, model, asked, parse_schedule("4"), Accelerator(cpu=True, mixed_precision=precision))


def run_toy(folder: Path, out: str = "out", said: list[str] | None = None, settings=(), **changes: object):
    """Run a toy suite in this process; returns its summary and rows."""
    suite = load_suite(write_suite(folder, **changes), folder, settings)
    store = Store(folder / out)
    options = RunOptions(device="cpu", every_seconds=0.0)
    summary = Runner(suite, store, folder, options, (said if said is not None else []).append).run()
    return summary, store.rows()
