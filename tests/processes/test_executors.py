"""Processes of this machine and what is told of jobs, without a cluster (`test_slurm.py` has one)."""

import os
import pickle
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import submitit
from front_door import call
from runner_tools import run_toy, write_suite

from benchmarks.engine import runner
from benchmarks.engine.identity import cell_key
from benchmarks.engine.running.options import RunOptions
from benchmarks.engine.suite import cell_task, load_suite
from benchmarks.executors import Work, local
from benchmarks.executors.local import places, visible_gpus
from benchmarks.executors.slurm import CellsJob, Submitted, further_options, job_name
from benchmarks.executors.watch import outcome, progress, watch
from benchmarks.store import Store
from tasks.contract import TaskError


def program(folder: Path, name: str, text: str, monkeypatch) -> None:
    """A program that this test's commands find before any other."""
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def work_of(folder: Path, **changes: object) -> Work:
    return Work(load_suite(write_suite(folder, **changes), folder), folder / "out", folder, RunOptions(device="cpu"))


def test_gpus_are_those_that_the_environment_leaves(monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    program(tmp_path, "nvidia-smi", "printf '0\\n1\\n2\\n'", monkeypatch)
    assert visible_gpus() == ["0", "1", "2"]
    for chosen, found in {"2,5": ["2", "5"], "": [], "-1": [], "GPU-8a,GPU-9b": ["GPU-8a", "GPU-9b"]}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
        assert visible_gpus() == found
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    program(tmp_path, "nvidia-smi", "echo 'no driver' >&2; exit 9", monkeypatch)
    assert visible_gpus() == []


def test_each_process_has_a_gpu_and_its_share_of_the_threads(monkeypatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert places(1) == [{}]
    two = [{"OMP_NUM_THREADS": "4", "CUDA_VISIBLE_DEVICES": name} for name in ("4", "6")]
    assert places(2) == places(2, "cuda") == two
    assert places(2, "cpu") == [{"OMP_NUM_THREADS": "4"}] * 2
    with pytest.raises(ValueError, match="--jobs 3 for 2 visible GPUs; use --jobs 2, or say --share-gpus"):
        places(3)
    assert [p["CUDA_VISIBLE_DEVICES"] for p in places(3, share_gpus=True)] == ["4", "6", "4"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert places(16, "cpu") == [{}] * 16
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="process group"):
        places(2)


def test_helpers_run_on_their_own_gpus(monkeypatch, tmp_path, capsys) -> None:
    started: list[dict] = []

    class Started:
        stdout = None

        def __init__(self, command, env, process_group, **more):
            assert process_group == 0  # a terminal's Ctrl-C does not reach it
            started.append({"command": command, **env})

        def wait(self) -> int:
            return 0

    monkeypatch.setattr(local, "subprocess", SimpleNamespace(Popen=Started, DEVNULL=None))
    # the device is asked for and the GPU's place given, but this machine may have none
    plain = runner.build_accelerator
    monkeypatch.setattr(runner, "build_accelerator", lambda options: plain(RunOptions("cpu")))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    arguments = (write_suite(tmp_path), "--out", str(tmp_path / "out"), "--data-root", str(tmp_path))
    code, out, _ = call(monkeypatch, capsys, "run", *arguments, "--jobs", "2", "--device", "cuda")
    assert code == 0 and "1 run" in out and os.environ["CUDA_VISIBLE_DEVICES"] == "4"
    assert [s["CUDA_VISIBLE_DEVICES"] for s in started] == ["6"] and started[0]["command"][-2:] == ["--jobs", "1"]


def test_a_machine_without_slurm_says_so_in_one_line(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    arguments = ("run", write_suite(tmp_path), "--out", str(tmp_path / "out"), "--data-root", str(tmp_path))
    code, out, err = call(monkeypatch, capsys, *arguments, "--executor", "slurm")
    assert err == "error: no sbatch on this machine, so no Slurm to submit to; use --executor local\n"
    assert code == 2 and not out and not (tmp_path / "out").exists()


def test_further_options_of_sbatch() -> None:
    found = {"mem": "32G", "exclusive": True, "mail-type": "END", "constraint": "a=b"}
    assert further_options(["mem=32G", "exclusive", "--mail_type=END", "constraint=a=b"]) == found
    for text, why in {"=3": "KEY=VALUE", "time=10": "use --time", "output=x": "set by this software"}.items():
        with pytest.raises(TaskError, match=why):
            further_options([text])


def test_a_job_carries_its_cells_and_not_the_file(tmp_path) -> None:
    work = work_of(tmp_path, seeds=[0, 1])
    content = pickle.dumps(CellsJob(work, together=False))
    write_suite(tmp_path, seeds=[7])
    assert [c.seed for c in pickle.loads(content).work.suite.cells] == [0, 1]
    assert job_name(work) == job_name(work_of(tmp_path, seeds=[3])) and job_name(work).startswith("toy-")


def test_a_job_that_slurm_queues_again_ends_the_step_and_leaves_no_failed_row(monkeypatch, tmp_path) -> None:
    """Submitit's handler left by SystemExit: where that came before Slurm's SIGTERM, it became the cell's failure."""
    work = work_of(tmp_path, eval=[4], tasks=[{"task": "toy", "recipe": {"steps": 200}}])
    work = replace(work, options=replace(work.options, every_seconds=0.0))
    store, queued, ended = Store(work.out), [], threading.Event()
    monkeypatch.setenv("TOY_PAUSE", "0.05")
    monkeypatch.setattr(submitit, "JobEnvironment", lambda: SimpleNamespace(num_tasks=1))

    def queue_again(number: int, frame: object) -> None:
        queued.append(number)
        sys.exit(-1)

    def signals() -> None:
        while not list(store.folder.glob("checkpoints/*.partial.pt")):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGUSR2)
        if not ended.wait(0.5):
            os.kill(os.getpid(), signal.SIGTERM)

    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGUSR2)}
    signal.signal(signal.SIGUSR2, queue_again)
    slurm = threading.Thread(target=signals)
    slurm.start()
    try:
        with pytest.raises(SystemExit) as status:
            CellsJob(work, together=False)()
    finally:
        ended.set()
        slurm.join()
        for number, handler in before.items():
            signal.signal(number, handler)
    assert status.value.code == 130 and queued == [signal.SIGUSR2] and not store.rows()
    assert list(store.folder.glob("checkpoints/*.partial.pt"))


def test_progress_names_states_and_why_jobs_wait() -> None:
    left = ["RUNNING", "PENDING (Resources)", "PENDING Priority", "RUNNING", "PENDING None"]
    assert progress(9, left) == "4 of 9 jobs done, 3 pending (Resources, Priority), 2 running"
    assert progress(2, []) == "2 of 2 jobs done"


def test_waiting_outlives_a_silent_controller(monkeypatch) -> None:
    monkeypatch.setattr("benchmarks.executors.watch.time.sleep", lambda seconds: None)
    silent = TaskError("squeue: timed out")
    answers: list = [{"1_0": "RUNNING", "1_1": "PENDING Priority"}, silent, {"1_1": "RUNNING"}, {}]
    said: list[str] = []

    def ask() -> dict[str, str]:
        answer = answers.pop(0)
        if isinstance(answer, TaskError):
            raise answer
        return answer

    watch(["1_0", "1_1"], ask, said.append)
    assert not answers and said[1] == "  squeue: timed out; asking again" and said[3] == "  2 of 2 jobs done"
    assert "1 of 2 jobs done, 1 running; " in said[2] and "jobs an hour" in said[2] and "min left" in said[2]


def test_outcome_reads_the_rows(tmp_path) -> None:
    backbones = ["tiny_backbone:tiny", "tiny_backbone:broken"]
    run_toy(tmp_path, backbones=backbones)
    work = work_of(tmp_path, backbones=backbones, seeds=[0, 1])
    keys = [cell_key(c, cell_task(c, tmp_path)) for c in work.suite.cells]
    summary = outcome(work, [Submitted(f"5_{i}", [key], 0) for i, key in enumerate(keys)])
    assert (len(summary.ran), len(summary.failed), summary.status) == (1, 3, 1)
    errors = [error for _, error in summary.failed]
    assert sum("these weights are torn" in e for e in errors) == 1
    assert sum("ended and left no row; see" in e and "5_1_0_log.err" in e for e in errors) == 1
    # an error of an earlier command is none of a job's
    late = outcome(work, [Submitted("6_2", [keys[2]], 99)])
    assert "6_2_0_log.err" in late.failed[1][1] and len(late.done) == 1
