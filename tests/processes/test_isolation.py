"""Nothing raised in a cell ends a run; lines name their cell; trackers and disks that fail cost one cell at most."""

import errno
import io
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from runner_tools import PLUGIN, run_toy, write_suite

import run_all
from benchmarks.engine.running.lines import PROGRESS, Lines
from benchmarks.engine.running.summary import Summary, duration
from benchmarks.executors.screen import Screen
from benchmarks.store import Store
from benchmarks.store.failures import one_line, trace_of

HERE = Path(run_all.__file__).parent


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("nothing to say")


class Hostile(BaseException):
    """As pyo3's PanicException: no Exception, and its text is no text."""

    def __str__(self) -> str:
        return 7  # type: ignore[return-value]


class Loud(ValueError):
    def __str__(self) -> str:
        return "x" * 10**6 + "\x1b[2J\n" * 1000


@pytest.mark.parametrize("error, told", [
    (MemoryError(), "MemoryError: no message"),
    (RecursionError("maximum recursion depth exceeded"), "RecursionError: maximum recursion depth exceeded"),
    (Mute(), "Mute: (its message cannot be shown: RuntimeError)"),
    (Hostile(), "Hostile: (its message cannot be shown: TypeError)"),
    (Loud(), "Loud: xxxxx"),
    (SystemExit(3), "SystemExit: 3"),
    (StopIteration(), "StopIteration: no message"),
    (KeyError("a"), "KeyError: 'a'"),
    (ValueError("caf\udce9 \x1b[31m\r\nsecond"), "ValueError: caf"),
], ids=lambda v: type(v).__name__)  # fmt: skip
@pytest.mark.parametrize("place", ["model", "predict"])
def test_whatever_a_cell_raises_is_its_row(tmp_path, monkeypatch, error, told, place) -> None:
    from flexivit_toy import Toy

    plain = getattr(Toy, place)

    def broken(self, *arguments):
        if self.seed == 0:
            raise error
        return plain(self, *arguments)

    monkeypatch.setattr(Toy, place, broken)
    summary, rows = run_toy(tmp_path, tasks=[{"task": "toy", "recipe": {"steps": 1}}], seeds=[0, 1], eval=[4])
    assert [r.status for r in rows] == ["failed", "ok"] and len(summary.failed) == len(summary.ran) == 1
    assert rows[0].error.startswith(told) and len(rows[0].error) <= 1000 and rows[0].error.isprintable()
    assert rows[0].traceback and len(rows[0].traceback) <= 20_000
    assert rows[0].label == summary.failed[0][0] and "\n" not in summary.failed[0][1]


def test_texts_of_errors_are_printable_lines() -> None:
    assert one_line(ValueError("a\rb")) == "ValueError: a" and one_line(ValueError("\x00")) == "ValueError: \ufffd"
    for error in (Mute(), Hostile(), Loud()):
        try:
            raise error
        except BaseException as caught:
            assert type(error).__name__ in trace_of(caught) and len(trace_of(caught)) <= 20_000


def test_a_lock_that_finds_no_inode_fails_its_cell_alone(tmp_path, monkeypatch) -> None:
    opened = open

    def full(path, *arguments, **more):
        if str(path).endswith(".lock") and "rows" not in str(path) and not broken:
            broken.append(path)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return opened(path, *arguments, **more)

    broken: list = []
    monkeypatch.setattr("benchmarks.store.files.open", full, raising=False)
    summary, rows = run_toy(tmp_path, tasks=[{"task": "toy", "recipe": {"steps": 2}}], seeds=[0, 1], eval=[4])
    assert [r.status for r in rows] == ["failed", "ok"] and len(broken) == 1, (summary, broken)
    assert ".lock cannot be written: No space left on device; free some space (or inodes" in summary.failed[0][1]


def test_a_quota_under_a_checkpoint_is_one_line_and_other_cells_go_on(tmp_path) -> None:
    """With a real limit on the size of files, in a process of its own."""
    tasks = [{"task": "toy", "recipe": {"steps": s, "batch": 8}} for s in (0, 3)]
    suite = write_suite(tmp_path, eval=[4], tasks=[tasks[1], tasks[0]])
    environment = {**os.environ, "PYTHONPATH": f"{HERE}:{PLUGIN}", "OMP_NUM_THREADS": "1"}
    limit = 300_000  # bytes: more than the probe of a row, less than a checkpoint that is padded below

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    code = (
        "import sys, torch, run_all, flexivit_toy\n"
        "plain = flexivit_toy.Toy.model\n"
        "def heavy(self, backbone):\n"
        "    model = plain(self, backbone)\n"
        "    model.register_buffer('weight', torch.zeros(100_000))\n"
        "    return model\n"
        "flexivit_toy.Toy.model = heavy\n"
        "run_all.main()\n"
    )
    command = [sys.executable, "-c", code, "run", suite, "--out", str(tmp_path / "out"), "--data-root", str(tmp_path)]
    done = subprocess.run(
        [*command, "--device", "cpu"], cwd=HERE, env=environment, preexec_fn=limited, capture_output=True,
        encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stdout + done.stderr
    assert "1 run, 0 done before, 1 failed, 0 blocked" in done.stdout
    rows = Store(tmp_path / "out").rows()
    assert [r.status for r in rows] == ["failed", "ok"]
    assert ".pt cannot be written: File too large; raise the limit on the size of files (ulimit -f)" in rows[0].error


def test_lines_name_their_cell() -> None:
    said: list[str] = []
    for several in (False, True):
        lines = Lines(said.append, several=several)
        lines.begin("[1/2]", "toy tiny seed 0", "3 of 3 rows to do")
        lines.cell("test top1 at grid 4: 50.0")
        lines.progress("step 1/2 loss 0.5")
    assert said == [
        "[1/2] toy tiny seed 0: 3 of 3 rows to do", "  test top1 at grid 4: 50.0",
        "  toy tiny seed 0: step 1/2 loss 0.5",
        "[1/2] toy tiny seed 0: 3 of 3 rows to do", "  toy tiny seed 0: test top1 at grid 4: 50.0",
        "  toy tiny seed 0: step 1/2 loss 0.5",
    ]  # fmt: skip
    quiet: list[str] = []
    Lines(quiet.append, said.append).progress("x")
    assert not quiet and said[-1] == "  : x"


def test_a_terminal_has_one_line_of_progress_a_process() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=60, height=20)
    with Screen(console) as screen:
        screen.say("stays [not markup]")
        screen.follow(1, io.StringIO(f"helper says\n{PROGRESS}helper step 1\n{PROGRESS}helper step 2\n"))
        screen.progress(0)("own step 1")
        screen.progress(0)("own step " + "9" * 100)
    shown = out.getvalue()
    for text in ("stays [not markup]", "helper says", "helper step 2", "own step 1"):
        assert text in shown
    assert PROGRESS not in shown and "9" * 61 not in shown  # cut to the width, never wrapped


def test_the_summary_says_what_became_of_the_cells() -> None:
    summary = Summary(["a"], ["b", "c"], [("d", "ValueError: x")], [("e", "no data")], seconds=100.0)
    assert summary.status == 1 and summary.lines() == [
        "2 run, 1 done before, 1 failed, 1 blocked in 1.7 min", "failed: d: ValueError: x", "blocked: e: no data",
    ]  # fmt: skip
    assert [duration(s) for s in (7, 89, 100, 5399, 7200)] == ["7 s", "89 s", "1.7 min", "90.0 min", "2.0 h"]


def test_two_jobs_speak_of_their_cells_and_one_sums_up(tmp_path) -> None:
    suite = write_suite(tmp_path, seeds=[0, 1], eval=[4], tasks=[{"task": "toy", "recipe": {"steps": 8}}])
    environment = {**os.environ, "PYTHONPATH": f"{HERE}:{PLUGIN}", "TOY_PAUSE": "0.2", "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable, "run_all.py", "run", suite, "--out", str(tmp_path / "out"), "--data-root", str(tmp_path),
        "--device", "cpu", "--jobs", "2",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2 run, 0 done before, 0 failed, 0 blocked in ") == 1 == done.stdout.count("rows: ")
    inner = [line for line in done.stdout.splitlines() if line.startswith("  ")]
    assert len(inner) == 4 and all("toy tiny_backbone:tiny trained at 4 seed" in line for line in inner), inner
    quiet = subprocess.run([*command, "--quiet"], cwd=HERE, env=environment, capture_output=True, encoding="utf-8")
    assert quiet.stdout.startswith("0 run, 2 done before") and quiet.stdout.count("\n") == 2, quiet.stdout


def test_a_log_that_is_full_ends_no_run(tmp_path, monkeypatch) -> None:
    from benchmarks.engine.running import lines, processes

    class Full(io.StringIO):
        def write(self, text: str = "") -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Left(BaseException):
        pass

    def leave(status: int) -> None:
        raise Left(status)

    Full.flush = Full.write
    monkeypatch.setattr(sys, "stdout", Full())
    lines.write_line("one")
    monkeypatch.setattr(processes.os, "_exit", leave)
    with pytest.raises(Left, match="130"):  # the status of a process of a group is its own, whatever its log does
        processes.end_process(130)
