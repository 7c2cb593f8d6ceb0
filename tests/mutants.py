"""Applies each change of tests/mutants.yaml to a copy of the tree and runs the one test that must go red.

    python tests/mutants.py [--part 1/4] [--only WORD]

Heavy libraries are imported once; each change is tried in a forked process, so it costs seconds. Before any change all
tests of the list must be green. Exit status 1 where a change survives.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
LIST = ROOT / "tests" / "mutants.yaml"
PACKAGES = ("backbones", "tasks", "benchmarks", "tests", "docs")
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
    "pytest",
)
SECONDS = 240  # a change that makes a test hang is noticed too


def copied(place: Path) -> None:
    """The tracked and new files of the tree, without what git ignores."""
    command = ["git", "ls-files", "-co", "--exclude-standard", *PACKAGES, "pyproject.toml"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in names:
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, place / name)


def passed(tests: list[str], place: Path, first: bool = True) -> set[str]:
    """Which of the tests pass, in a fork; `first`: stop at the first that fails. Skipped is not passed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
            os.write(writing, "\n".join(_passed(tests, place, first)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        found = set(pipe.read().splitlines())
    os.waitpid(child, 0)
    return found


def _passed(tests: list[str], place: Path, first: bool) -> set[str]:
    import pytest

    class Seen:
        def __init__(self) -> None:
            self.good: set[str] = set()
            self.bad: set[str] = set()

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            name = report.nodeid.partition("[")[0]
            if report.failed:
                self.bad.add(name)
            elif report.when == "call" and report.passed:
                self.good.add(name)

    signal.alarm(SECONDS if first else 4 * SECONDS)
    os.chdir(place)
    sys.path[:0] = [str(place), str(place / "tests")]
    seen = Seen()
    pytest.main([*tests, "-q", *["-x"] * first, "-p", "no:cacheprovider", "--no-header"], plugins=[seen])
    return seen.good - seen.bad


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
        if lacking := set(wanted) - passed(wanted, place, first=False):
            print(f"not green before any change: {', '.join(sorted(lacking))}")
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
        noticed = not passed([mutant["test"]], place)
    finally:
        path.write_text(text, encoding="utf-8")
    print(
        f"{'noticed ' if noticed else 'SURVIVED'} {time.perf_counter() - started:5.1f} s  {mutant['name']}", flush=True
    )
    return noticed


if __name__ == "__main__":
    raise SystemExit(main())
