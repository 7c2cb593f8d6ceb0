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


def green(tests: list[str], place: Path) -> bool:
    """Do the tests pass, and is at least one of them not skipped? Run in a fork of this process."""
    child = os.fork()
    if child == 0:
        with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
            os._exit(_status(tests, place))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _status(tests: list[str], place: Path) -> int:
    import pytest

    class Passed:
        count = 0

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            self.count += report.when == "call" and report.passed

    signal.alarm(SECONDS)
    os.chdir(place)
    sys.path[:0] = [str(place), str(place / "tests")]
    seen = Passed()
    status = pytest.main([*tests, "-q", "-x", "-p", "no:cacheprovider", "--no-header"], plugins=[seen])
    return int(status) or int(not seen.count)


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
        for test in sorted({m["test"] for m in chosen}):
            if not green([test], place):
                print(f"{test} is not green before any change")
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
        noticed = not green([mutant["test"]], place)
    finally:
        path.write_text(text, encoding="utf-8")
    print(
        f"{'noticed ' if noticed else 'SURVIVED'} {time.perf_counter() - started:5.1f} s  {mutant['name']}", flush=True
    )
    return noticed


if __name__ == "__main__":
    raise SystemExit(main())
