"""Shared by the tests of faults: tiny class folders, and suites of real cells over them."""

import itertools
from pathlib import Path

import official_forms
import runner_tools  # noqa: F401  (puts the plug-ins on the path)
import yaml

from benchmarks.engine.runner import Runner, RunOptions, Summary
from benchmarks.engine.suite import load_suite
from benchmarks.store import Row, Store

RECIPE = {"steps": 2, "batch": 4, "lr": 0.01, "warmup": 0}


def class_folders(folder: Path, each: int = 4) -> Path:
    """`folder/{train,test}/{cat,dog}/*.jpg`."""
    places = itertools.product(("train", "test"), ("cat", "dog"), range(each))
    for seed, (split, name, i) in enumerate(places):
        official_forms.picture(folder / split / name / f"{i}.jpg", (40, 30), seed)
    return folder


def cell(data: str, **more: object) -> dict:
    """An entry of a suite: classification of the folder `data/` under the data root."""
    return {"task": "classification", "options": {"data": f"{data}/", "image_size": 24, **more}, "recipe": RECIPE}


def run_cells(
    folder: Path, *tasks: dict, out: Path | None = None, said: list[str] | None = None, workers: int = 0,
    skip: bool = False,
) -> tuple[Summary, list[Row]]:  # fmt: skip
    """Run the cells in this process with data root `folder`; returns the summary and all rows."""
    suite = {"name": "faults", "backbones": ["tiny_backbone:tiny"], "train": [4], "eval": [2, 4], "tasks": list(tasks)}
    path = folder / "faults.yaml"
    path.write_text(yaml.safe_dump(suite))
    store = Store(out or folder / "out")
    options = RunOptions(device="cpu", every_seconds=0.0, batch=4, workers=workers, skip_broken=skip)
    say = (said if said is not None else []).append
    return Runner(load_suite(str(path), folder), store, folder, options, say).run(), store.rows()
