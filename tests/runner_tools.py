"""Shared by the tests of the runner: a suite of toy cells, written and run."""

import sys
from pathlib import Path

import yaml

from benchmarks.engine.runner import Runner, RunOptions
from benchmarks.engine.suite import load_suite
from benchmarks.store import Store

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


def run_toy(folder: Path, out: str = "out", said: list[str] | None = None, settings=(), **changes: object):
    """Run a toy suite in this process; returns its summary and rows."""
    suite = load_suite(write_suite(folder, **changes), folder, settings)
    store = Store(folder / out)
    options = RunOptions(device="cpu", every_seconds=0.0)
    summary = Runner(suite, store, folder, options, (said if said is not None else []).append).run()
    return summary, store.rows()
