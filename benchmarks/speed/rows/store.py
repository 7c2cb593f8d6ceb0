"""Time and memory of plan, re-issue and reading for the report, over synthetic stores of 1,000 rows and more.

python -m benchmarks.speed.rows.store --rows 1000 10000 100000 --out results/measured/bench/store.md

The rows are those of one cell that was run, written again under the keys of every other cell: what is planned, issued
again and read is what real runs write. Each figure is of a fresh process: its processor time and its peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.cli.errors import run_script
from benchmarks.engine.identity import Identities, cell_key
from benchmarks.engine.runner import Runner
from benchmarks.engine.running.options import RunOptions
from benchmarks.engine.suite import cell_task, load_suite
from benchmarks.store import Row, Store, environment

ROOT = Path(__file__).parents[3]
# a cell's views; coarse grids, so that the one cell that is run takes seconds
VIEWS = [{"grid": grid, "resize": resize} for grid in (3, 4, 5, 6, 8) for resize in ("pi", "bilinear")]
BACKBONES = ["flexivit_nano", "vit_nano_g8"]
TRAIN = [5, 8, 10, 12, 15]
READ = (
    "import sys; from benchmarks.store import Store; from benchmarks.report.tables import as_csv; "
    "rows = Store(sys.argv[1]).rows(); print(len(as_csv(rows).splitlines()))"
)


@dataclass(frozen=True)
class Measured:
    """Of a fresh process: seconds of processor time, mebibytes at its peak, and what it printed."""

    seconds: float
    mebibytes: float
    output: str


def write_suite(folder: Path, cells: int) -> Path:
    """A suite of that many cells over the drawn scenes; two steps each, should one be run."""
    content = {
        "name": "synthetic", "backbones": BACKBONES, "train": TRAIN, "eval": VIEWS,
        "seeds": list(range(-(-cells // (len(BACKBONES) * len(TRAIN))))),
        "tasks": [{"task": "classification", "options": {"data": "scenes"}, "recipe": {"steps": 2, "warmup": 0}}],
    }  # fmt: skip
    path = folder / "synthetic.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def first_rows(suite_file: Path, data: Path, out: Path) -> list[Row]:
    """Rows of a suite's first cell, which is run; the same in a suite of any number of cells."""
    first, store = load_suite(str(suite_file), data).cells[0], Store(out)
    suite = load_suite(str(suite_file), data, ["seeds=[0]"], _only(first))
    Runner(suite, store, data, RunOptions(device="cpu"), _silent).run()
    rows = store.rows()
    assert len(rows) == len(VIEWS) and all(row.status == "ok" for row in rows), "the first cell failed"
    return rows


def fill(suite_file: Path, data: Path, out: Path, first: Sequence[Row]) -> int:
    """Write the rows of the first cell, and again under the keys of every other; how many rows there are."""
    store, identities = Store(out), Identities("float32")
    made, waiting = {(row.split, row.view_key): row for row in first}, list(first)
    for cell in load_suite(str(suite_file), data).cells[1:]:
        task = cell_task(cell, data)
        identity = identities.of(cell, task)
        for (split, view), key in identity.rows.items():
            waiting.append(made[split, identity.views[view]].changed(
                backbone=cell.backbone, train_grid=int(cell.train or 0), seed=cell.seed, label=cell.label,
                cell_key=cell_key(cell, task), train_key=identity.train, weights_hash=identity.weights, row_key=key,
                samples=None,
            ))  # fmt: skip
        if len(waiting) >= 5000:
            store.append(waiting)
            waiting = []
    store.append(waiting)
    return len(store.entries())


def _only(cell: object) -> list[str]:
    return [f"backbone={cell.backbone}", f"train={cell.train}"]  # type: ignore[attr-defined]


def _silent(text: str) -> None:
    """Progress of the one real cell is not of interest."""


def measure(command: Sequence[str]) -> Measured:
    """Run a command in a process of its own.

    Raises: RuntimeError with the end of what it said, where it fails.
    """
    process = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: status {process.returncode}: {output[-500:]}")
    return Measured(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, output)


def line_of(rows: int, folder: Path, data: Path, first: Sequence[Row]) -> dict[str, float]:
    """Figures of a store of about that many rows; each verb must find all of them done."""
    folder.mkdir(parents=True)
    suite, out = write_suite(folder, rows // len(VIEWS)), folder / "out"
    out.mkdir()
    count = fill(suite, data, out, first)
    cells = count // len(VIEWS)
    places = ["--data-root", str(data), "--out", str(out)]
    planned = measure(["run_all.py", "plan", str(suite), *places, "--json"])
    states = [cell["state"] for cell in json.loads(planned.output[planned.output.index("{") :])["cells"]]
    assert states == ["done"] * cells, f"plan: {states.count('done')} of {cells} cells are done"
    again = measure(["run_all.py", "run", str(suite), *places, "--device", "cpu", "--quiet"])
    assert f"0 run, {cells} done before, 0 failed" in again.output, again.output[-300:]
    read = measure(["-c", READ, str(out)])
    found = {"cells": cells, "rows": count, "mebibytes of rows.jsonl": (out / "rows.jsonl").stat().st_size / 2**20}
    for name, one in (("plan", planned), ("re-issue", again), ("read and table", read)):
        found |= {f"{name}, s": one.seconds, f"{name}, MiB": one.mebibytes}
    return found


def markdown(lines: Sequence[dict[str, float]]) -> str:
    """One line a store."""
    names = list(lines[0])
    body = [f"| {' | '.join(_shown(name, line[name]) for name in names)} |" for line in lines]
    return "\n".join([f"| {' | '.join(names)} |", f"|{' ---: |' * len(names)}", *body])


def _shown(name: str, value: float) -> str:
    return f"{value:.1f}" if name.endswith(", s") else f"{value:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.speed.rows.store", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--out", type=Path, help="markdown file to write")
    options = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        first = first_rows(write_suite(Path(folder), 1), data, Path(folder) / "first")
        for rows in options.rows:
            lines.append(line_of(rows, Path(folder) / str(rows), data, first))
            print(markdown(lines[-1:]), flush=True)
    made = environment()
    conditions = (
        f"`python -m benchmarks.speed.rows.store --rows {' '.join(map(str, options.rows))}` at {made['revision']}, "
        f"{made['device_name']}, {made['cpus']} CPUs, Python {made['versions']['python']}; one thread, processor time"
    )
    text = f"# Stores of many rows\n\n{conditions}.\n\n{markdown(lines)}\n"
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")
    print(f"{text}\npeak of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    run_script(main)
