"""A signal stops every process of a run, with its checkpoints written; the same command goes on from there."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runner_tools import PLUGIN, run_toy, write_suite

import run_all
from benchmarks.engine.runner import Runner
from benchmarks.engine.running.interrupts import deferred, stopping
from benchmarks.store import Store

HERE = Path(run_all.__file__).parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def start(folder: Path, suite: str, *more: str, launcher: list[str] | None = None) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": f"{HERE}:{PLUGIN}", "TOY_PAUSE": "0.3", "OMP_NUM_THREADS": "1"}
    command = [
        *(launcher or [sys.executable]), "run_all.py", "run", suite, "--out", str(folder / "out"), "--data-root",
        str(folder), "--device", "cpu", *more,
    ]  # fmt: skip
    return subprocess.Popen(
        command, cwd=HERE, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    )


def of_run(folder: Path) -> list[int]:
    """All processes whose command line names the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(folder / "out").encode() in words.split(b"\0"):
                found.append(int(entry.name))
    return found


def read_until(process: subprocess.Popen[str], words: str, times: int) -> None:
    while times:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        times -= words in line


SLOW = pytest.mark.slow  # two fresh processes load torch; one signal shows the mechanism
OTHERS = [pytest.param(s, marks=SLOW) for s in (signal.SIGINT, signal.SIGHUP)]


@pytest.mark.parametrize("number", [signal.SIGTERM, *OTHERS])
def test_a_signal_stops_the_helpers_of_a_run(tmp_path, number) -> None:
    tasks = [{"task": "toy", "recipe": {"steps": 60}}]
    suite = write_suite(tmp_path, seeds=[0, 1], eval=[4], tasks=tasks)
    process = start(tmp_path, suite, "--jobs", "2")
    read_until(process, "rows to do", 2)
    time.sleep(1.2)  # some steps of either
    assert len(of_run(tmp_path)) == 2
    process.send_signal(number)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 130 and of_run(tmp_path) == [], out + error
    assert error.count("stopped; the same command goes on from here") == 1 and "Traceback" not in error
    assert len(list((tmp_path / "out" / "checkpoints").glob("*.partial.pt"))) == 2
    summary, rows = run_toy(tmp_path, seeds=[0, 1], eval=[4], tasks=tasks)
    assert summary.status == 0 and [r.status for r in rows] == ["ok", "ok"]
    assert all(r.training["resumed_at"] and r.training["resumed_at"][0] > 0 for r in rows)


def test_a_signal_stops_a_process_group_at_one_step(tmp_path) -> None:
    tasks = [{"task": "toy", "recipe": {"steps": 60}}]
    suite = write_suite(tmp_path, eval=[4], tasks=tasks)
    process = start(tmp_path, suite, launcher=TORCHRUN)
    read_until(process, "rows to do", 1)
    time.sleep(1.2)
    process.send_signal(signal.SIGTERM)
    out, error = process.communicate(timeout=60)
    assert process.returncode != 0 and of_run(tmp_path) == [], out + error
    assert "stopped; the same command goes on from here" in error, error
    assert len(list((tmp_path / "out" / "checkpoints").glob("*.partial.pt"))) == 1
    assert not (tmp_path / "out" / "rows.jsonl").read_text()  # a stop is no failure
    again = start(tmp_path, suite, launcher=TORCHRUN)
    out, error = again.communicate(timeout=120)
    assert again.returncode == 0, out + error
    _, rows = run_toy(tmp_path, eval=[4], tasks=tasks)
    assert len(rows) == 1 and rows[0].training["resumed_at"][0] > 0


def test_a_second_signal_does_not_wait_for_the_step() -> None:
    with deferred() as interrupted:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupted.wait(5)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)


def test_an_error_that_the_signal_caused_is_the_signal() -> None:
    for killed_first in (False, True):
        with pytest.raises(KeyboardInterrupt), deferred():
            if not killed_first:
                os.kill(os.getpid(), signal.SIGTERM)
            else:
                signal.setitimer(signal.ITIMER_REAL, 0.2)
                handler = signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
            try:
                raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated.")
            finally:
                if killed_first:
                    time.sleep(0.3)
                    signal.signal(signal.SIGALRM, handler)
    with pytest.raises(RuntimeError, match="another"), deferred():
        raise RuntimeError("another")


def test_an_error_on_the_way_out_of_a_stop_is_no_failure(tmp_path, monkeypatch) -> None:
    """A decoding process that dies of the same signal was told of while the stop was cleaned up, as a failed row."""

    def stopped(*_: object) -> bool:
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated.")

    monkeypatch.setattr(Runner, "_claimed", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_toy(tmp_path)
    assert not Store(tmp_path / "out").rows()


def test_handlers_are_put_back_and_what_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        handlers = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
        with stopping():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)
        assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)] == handlers
    finally:
        signal.signal(signal.SIGHUP, before)
