"""A tree of the suite, and what a command takes in it: processor time of a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[3]
# rows hold what `time.perf_counter` says; by this a process sees its own processor time on it, in any revision
RUN = (
    "import runpy, sys, time; time.perf_counter = time.process_time; sys.path.insert(0, ''); sys.argv = sys.argv[1:]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)
ENV = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
UNSET = ("FLEXIVIT_DATA", "PYTHONDONTWRITEBYTECODE")  # a user's second run finds its modules compiled


@dataclass(frozen=True)
class Tree:
    """Checked-out files of a revision. `work`: where its data and results go."""

    revision: str
    folder: Path
    work: Path


def git(*arguments: str) -> str:
    """What git answers in this repository.

    Raises: ValueError with git's own line where it fails.
    """
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        raise ValueError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextlib.contextmanager
def checked_out(revision: str, temporary: Path) -> Iterator[Tree]:
    """A tree of a revision in a temporary folder, removed afterwards; "" is the present tree as it is.

    Raises: ValueError for a revision that there is not.
    """
    work = temporary / (revision or "present").replace("/", "_")
    work.mkdir()
    if not revision:
        from benchmarks.store.environment import revision as present

        yield Tree(present() or "unknown", ROOT, work)
        return
    commit, folder = git("rev-parse", "--short=12", f"{revision}^{{commit}}"), work / "tree"
    git("worktree", "add", "--detach", str(folder), commit)
    try:
        yield Tree(commit, folder, work)
    finally:
        git("worktree", "remove", "--force", str(folder))


def side_by_side(trees: Sequence[Tree], arguments: Callable[[Tree], Sequence[str]]) -> list[float]:
    """Seconds of processor time of `run_all.py ARGUMENTS` in each tree, children included, all at once on one CPU.

    They share the CPU by milliseconds, so that what else the machine does falls on all of them alike.

    Raises: RuntimeError with the end of what one said, where it fails.
    """
    cpu, allowed = max(os.sched_getaffinity(0)), os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})  # children inherit it
    try:
        begun = [_begin(tree, arguments(tree)) for tree in trees]
    finally:
        os.sched_setaffinity(0, allowed)
    return [_end(process, output, tree) for (process, output), tree in zip(begun, trees, strict=True)]


def _begin(tree: Tree, arguments: Sequence[str]) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    places = {"PYTHONPATH": str(tree.folder), "PYTHONPYCACHEPREFIX": str(tree.work / "compiled")}
    output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by _end; a pipe that nobody reads yet may fill
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, "run_all.py", *arguments], cwd=tree.folder, stdout=output, stderr=subprocess.STDOUT,
        env={name: value for name, value in os.environ.items() if name not in UNSET} | ENV | places,
    )  # fmt: skip
    return process, output


def _end(process: subprocess.Popen[bytes], output: IO[bytes], tree: Tree) -> float:
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    with output:
        output.seek(0)
        if process.returncode:
            told = output.read().decode(errors="replace")[-500:]
            raise RuntimeError(f"{tree.revision}: {process.args!r}: {told}")
    return used.ru_utime + used.ru_stime


def read_rows(out: Path) -> list[Mapping[str, Any]]:
    """Rows of a run as JSON has them, whatever revision wrote them.

    Raises: RuntimeError where one failed, or there is none.
    """
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    if not rows or any(row["status"] != "ok" for row in rows):
        told = next((row.get("error") for row in rows if row["status"] != "ok"), "no rows")
        raise RuntimeError(f"{out}: {told}")
    return rows
