"""Were a step, a sweep, the help or a plan slowed since a revision? Both run the same commands, side by side.

    python -m benchmarks.speed.revision BEFORE --turns 9

The revision is checked out in a temporary folder, which is removed afterwards. `run_all.py run` trains and evaluates a
cell a task on the drawn pictures, from a suite file that both revisions read, in both at once on one CPU, which they
share by milliseconds: what else the machine does falls on both. Seconds are processor time. Prints markdown: medians,
and the ratios after / before of the turns.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from backbones.grids import NANO_GRIDS
from benchmarks.cli.errors import run_script
from benchmarks.speed.revision.trees import Tree, checked_out, git, read_rows, side_by_side

TASKS: Mapping[str, Mapping[str, Any]] = {"classification": {"batch": 16}, "segmentation": {"batch": 8}}
PLANNED = "paper/transfer_table"
HEAD = ("what", "before", "after", "after / before: median", "smallest", "largest")
SHORT = 3  # repeats of a short command in a turn
WARM_UP = 1  # turn, in which the pictures are drawn


def suite_of(backbone: str, steps: int, grids: Sequence[int]) -> str:
    """YAML of a suite of a cell a task, in words that every revision reads.

    Example: `suite_of("flexivit_nano", 20, [5, 8])`
    """
    return yaml.safe_dump({
        "name": "revision", "description": "A step and a sweep of each task.", "backbones": [backbone], "train": [8],
        "eval": list(grids),
        "tasks": [
            {"task": name, "options": {"data": "scenes"}, "recipe": {"steps": steps, **recipe}}
            for name, recipe in TASKS.items()
        ],
    })  # fmt: skip


def times_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds of a step, and of predicting a picture under all views, as the rows of a cell have them.

    Example: two rows of 10 and 5 pictures a second, trained for 20 steps in 4 s: `{"step": 0.2, "sweep": 0.3}`
    """
    training = rows[0]["training"]
    return {
        "step": training["seconds"] / training["steps"],
        "sweep": sum(1 / row["cost"]["images_per_second"] for row in rows),
    }


def line_of(name: str, before: Sequence[float], after: Sequence[float]) -> str:
    """A row of the table from seconds by turn.

    Example: `line_of("a step", [1.0, 2.0], [1.0, 2.0])` is "| a step | 1.5 s | 1.5 s | 1.000 | 1.000 | 1.000 |"
    """
    ratios = [b / a for a, b in zip(before, after, strict=True)]
    shown = [_seconds(statistics.median(taken)) for taken in (before, after)]
    return f"| {' | '.join([name, *shown, *(f'{f(ratios):.3f}' for f in (statistics.median, min, max))])} |"


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"


def measured(trees: Sequence[Tree], suite: Path, planned: Path, turn: int) -> dict[str, list[float]]:
    """Seconds in each tree, by name of everything that is compared, once."""
    found: dict[str, list[float]] = {}

    def of_run(tree: Tree) -> list[str]:
        places = ["--data-root", str(tree.work / "data"), "--out", str(tree.work / str(turn))]
        return ["run", str(suite), *places, "--device", "cpu", "--every", "3600"]

    whole = side_by_side(trees, of_run)
    for tree in trees:
        rows = read_rows(tree.work / str(turn))
        for task in TASKS:
            times = times_of([row for row in rows if row["task"] == task])
            found.setdefault(f"{task}: a step of {TASKS[task]['batch']} pictures", []).append(times["step"])
            found.setdefault(f"{task}: a picture under all grids", []).append(times["sweep"])
    found["the whole of this run"] = whole

    def of_plan(tree: Tree) -> list[str]:
        places = ["--data-root", str(tree.work / "nothing"), "--out", str(tree.work / "planned")]
        return ["plan", str(planned), *places]

    for name, arguments in (("`run_all.py --help`", lambda _: ["--help"]), (f"`run_all.py plan {PLANNED}`", of_plan)):
        repeats = [side_by_side(trees, arguments) for _ in range(SHORT)]
        found[name] = [statistics.median(own) for own in zip(*repeats, strict=True)]
    return found


def compare(trees: Sequence[Tree], suite: Path, planned: Path, turns: int) -> Iterator[list[str]]:
    """Lines of the table after each turn: both trees side by side, begun in an order that changes."""
    times: dict[str, list[list[float]]] = {}
    for turn in range(turns + WARM_UP):
        order = list(trees) if turn % 2 else list(reversed(trees))
        found = measured(order, suite, planned, turn)
        if turn >= WARM_UP:
            for name, seconds in found.items():
                times.setdefault(name, []).append(seconds if turn % 2 else seconds[::-1])
            yield [line_of(name, *(list(own) for own in zip(*taken, strict=True))) for name, taken in times.items()]


def told(options: argparse.Namespace, trees: Sequence[Tree], lines: Sequence[str], turns: int) -> str:
    """The page: command, both revisions, machine, versions, date, table."""
    from benchmarks.cost.rates import device_key
    from benchmarks.store.environment import environment

    made, (before, after) = environment(), trees
    versions = [f"{name} {made['versions'][name]}" for name in ("python", "torch", "timm", "numpy")]
    when = [git("show", "-s", "--format=%cs", tree.revision.split("+")[0]) for tree in trees]
    conditions = [
        f"`python -m benchmarks.speed.revision {' '.join(sys.argv[1:])}`, {datetime.date.today()}:",
        f"before is {before.revision} of {when[0]}, after {after.revision} of {when[1]}.",
        f"{device_key('cpu')}, {made['cpus']} CPUs, no GPU, {', '.join(versions)}. Processor time of one thread, both",
        "revisions at once on one CPU,",
        f"median of {turns} turns after {WARM_UP} that draws the pictures; a ratio is a turn's, below 1 where",
        f"the later revision is faster. {options.backbone}, trained {options.steps} steps at grid 8 on drawn pictures,",
        f"evaluated at grids {', '.join(map(str, options.grids))}, all tasks in one process.",
        f"What is planned is {PLANNED} as it is at {before.revision}, for both, with nothing on the disk.",
    ]
    head = [f"| {' | '.join(HEAD)} |", f"| --- |{' ---: |' * (len(HEAD) - 1)}"]
    return "\n".join(["# Two revisions side by side", "", textwrap.fill(" ".join(conditions), 120), "", *head, *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", help="a revision, as git names it")
    parser.add_argument("--after", default="", help="another revision; default: the present tree as it is")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--backbone", default="flexivit_nano")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--grids", type=int, nargs="+", default=list(NANO_GRIDS))
    parser.add_argument("--out", type=Path, help="markdown file, written after each turn")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        temporary = Path(folder)
        trees = [stack.enter_context(checked_out(r, temporary)) for r in (options.before, options.after)]
        suite, planned = temporary / "revision.yaml", temporary / "planned.yaml"
        suite.write_text(suite_of(options.backbone, options.steps, options.grids), encoding="utf-8")
        planned.write_text(git("show", f"{trees[0].revision}:benchmarks/suites/{PLANNED}.yaml"), encoding="utf-8")
        page = ""
        for turn, lines in enumerate(compare(trees, suite, planned, options.turns), 1):
            page = told(options, trees, lines, turn)
            print(f"turn {turn} of {options.turns}", file=sys.stderr, flush=True)
            if options.out:
                options.out.write_text(page + "\n", encoding="utf-8")
        print(page)


if __name__ == "__main__":
    run_script(main)
