"""Applies each change of tests/mutants.yaml to a copy of the tree and runs the one test that must go red.

    python tests/mutants.py [--part 1/4] [--only WORD]

Heavy libraries are imported once; each change is tried in a forked process, so it costs seconds. Before any change all
tests of the list must be green. A change is noticed where its test fails, never where it is skipped. Exit status 1
where a change survives.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import dataclasses
import importlib
import os
import py_compile
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
LIST = ROOT / "tests" / "mutants.yaml"
HEAVY = (
    "numpy",
    "scipy.stats",
    "pandas",
    "torch",
    "torchvision",
    "timm",
    "accelerate",
    "hypothesis",
    "pydantic",
)
SECONDS = 240  # a change that makes a test hang is noticed too


def copied(place: Path) -> None:
    """The tracked and new files of the tree, without results and what git ignores."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "--", ".", ":!results"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in names:
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, place / name)
    # compiled once; a changed file is seen by its content, whatever its time
    compileall.compile_dir(place, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)


@dataclasses.dataclass(frozen=True)
class Told:
    """Names of tests that passed and that failed, in a process that came to its end or did not."""

    passed: frozenset[str]
    failed: frozenset[str]
    ended: bool


def run(tests: list[str], place: Path, seconds: int, first: bool) -> Told:
    """The tests in a fork, with `seconds` of time; `first`: stop at the first that fails. Skipped is neither."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
            seen = _run(tests, place, seconds, first)
            os.write(
                writing,
                "\n".join([*(f"+{n}" for n in seen.good - seen.bad), *(f"-{n}" for n in seen.bad), "."]).encode(),
            )
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        lines = pipe.read().splitlines()
    os.waitpid(child, 0)
    named = {mark: frozenset(line[1:] for line in lines if line[0] == mark) for mark in "+-"}
    return Told(named["+"], named["-"], "." in lines)


class Seen:
    """A plug-in of pytest that keeps which tests passed and failed; a file that cannot be collected has failed."""

    def __init__(self) -> None:
        self.good: set[str] = set()
        self.bad: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.partition("[")[0]
        if report.failed:
            self.bad.add(name)
        elif report.when == "call" and report.passed:
            self.good.add(name)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.bad.add(report.nodeid)


def _run(tests: list[str], place: Path, seconds: int, first: bool) -> Seen:
    signal.alarm(seconds)
    os.chdir(place)
    sys.path[:0] = [str(place), str(place / "tests")]
    seen = Seen()
    options = ["-q", *["-x"] * first, "-p", "no:cacheprovider", "--no-header", "--assert=plain"]
    pytest.main([*tests, *options], plugins=[seen])
    return seen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", default="1/1", help="which part of the list, such as 2/4")
    parser.add_argument("--only", default="", help="changes whose name or file holds this")
    options = parser.parse_args()
    part, parts = map(int, options.part.split("/"))
    listed = yaml.safe_load(LIST.read_text(encoding="utf-8"))
    chosen = [m for m in listed if options.only in f"{m['name']} {m['file']}"][part - 1 :: parts]
    sys.dont_write_bytecode = True
    for name in HEAVY:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        copied(place)
        for mutant in chosen:
            count = (place / mutant["file"]).read_text(encoding="utf-8").count(mutant["before"])
            if count != 1:
                print(f"{mutant['name']}: {mutant['file']} holds {mutant['before']!r} {count} times, it must be once")
                return 2
        wanted = sorted({m["test"] for m in chosen})
        if red := (set(wanted) - run(wanted, place, 4 * SECONDS, first=False).passed):
            print(f"not green before any change: {', '.join(sorted(red))}")
            return 2
        survivors = [m for m in chosen if not killed(m, place)]
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} changes were noticed")
    return int(bool(survivors))


def killed(mutant: dict[str, str], place: Path) -> bool:
    """Does the test go red under the change? The file is as before afterwards."""
    path, started = place / mutant["file"], time.perf_counter()
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(mutant["before"], mutant["after"]), encoding="utf-8")
    try:
        told = run([mutant["test"]], place, SECONDS, first=True)
        noticed = bool(told.failed) or not told.ended
    finally:
        path.write_text(text, encoding="utf-8")
    word = "SURVIVED" if not noticed else "noticed " if told.ended else "hangs   "
    print(f"{word} {time.perf_counter() - started:5.1f} s  {mutant['name']}", flush=True)
    return noticed


if __name__ == "__main__":
    raise SystemExit(main())
