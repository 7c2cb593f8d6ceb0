"""Cells as jobs of a real Slurm of one node, started for these tests: `make slurm` (as root, with Slurm's packages)."""

import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from runner_tools import PLUGIN, run_toy, write_suite

from benchmarks.executors.slurm import recorded
from benchmarks.store import Store

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]
NODE = ROOT / "tests" / "slurm_node.sh"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> dict[str, str]:
    """Environment of commands that find the node; one thread and slow steps, so that jobs can be met in their midst."""
    missing = [tool for tool in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(tool)]
    assert not missing, f"no {missing[0]}: apt-get install munge slurmctld slurmd slurm-client"
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run([NODE, "start", folder], check=True, timeout=60, stdin=subprocess.DEVNULL)
    more = {"SLURM_CONF": f"{folder}/slurm.conf", "PYTHONPATH": str(PLUGIN), "OMP_NUM_THREADS": "1"}
    yield {**os.environ, **more}
    subprocess.run([NODE, "stop", folder], check=True, timeout=60)


def start(folder: Path, suite: str, environment: dict[str, str], *more: str) -> subprocess.Popen:
    command = [
        sys.executable, "run_all.py", "run", suite, "--out", str(folder / "jobs"), "--data-root", str(folder),
        "--device", "cpu", "--every", "0", "--executor", "slurm", *more,
    ]  # fmt: skip
    pipe = subprocess.PIPE
    # tests that run in the background inherit an ignored SIGINT; who waits at a terminal does not
    terminal = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True, preexec_fn=terminal
    )


def end(process: subprocess.Popen) -> tuple[int, str]:
    out, err = process.communicate(timeout=200)
    return process.returncode, out + err


def same(found: list[dict], expected: list[dict]) -> bool:
    """The same successful rows, each once, whatever their order."""
    found, expected = ([r for r in rows if r["status"] == "ok"] for rows in (found, expected))
    kept = [{r["row_key"]: (r["metrics"], r["images"]) for r in rows} for rows in (found, expected)]
    return kept[0] == kept[1] and len(kept[0]) == len(found)


def slurm(environment: dict[str, str], *command: str) -> str:
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60).stdout


def until(done, seconds: float = 60) -> None:
    last = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < last, "waited in vain"
        time.sleep(0.1)


def test_jobs_give_the_rows_of_this_machine_and_are_not_submitted_twice(tmp_path, cluster) -> None:
    changes = {"seeds": [0, 1, 2, 3, 4, 5], "backbones": ["tiny_backbone:tiny", "tiny_backbone:broken"]}
    _, whole = run_toy(tmp_path, "whole", **changes)
    suite, store = write_suite(tmp_path, **changes), Store(tmp_path / "jobs")
    code, said = end(start(tmp_path, suite, cluster, "--only", "backbone=*:tiny", "--cpus", "1"))
    assert code == 0 and "6 jobs submitted" in said and "6 of 6 jobs done" in said and "6 run" in said, said
    assert same(store.rows(), whole)
    # the node takes arrays of four: two arrays
    assert len({s.job.split("_")[0] for s in recorded(store)}) == 2
    code, said = end(start(tmp_path, suite, cluster, "--pack", "4", "--no-wait"))
    assert code == 0 and "2 jobs submitted" in said and "squeue --name" in said
    code, said = end(start(tmp_path, suite, cluster))
    # the broken cells were tried once by the waiting jobs, and their errors are rows; on a busy machine those jobs may
    # have ended before this command looked, which then tries once more
    late = "6 jobs submitted, 0 queued before, for 6 cells" in said
    assert code == 1 and (late or "0 jobs submitted, 2 queued before, for 6 cells" in said), said
    assert "6 done before, 6 failed, 0 blocked" in said and "these weights are torn" in said
    failed = [r for r in store.rows() if r["status"] == "failed"]
    jobs = 14 if late else 8
    assert len(failed) == (12 if late else 6) and same(store.rows(), whole) and len(recorded(store)) == jobs
    code, said = end(start(tmp_path, suite, cluster, "--only", "backbone=*:tiny"))
    assert code == 0 and "submitted" not in said and "6 done before" in said and len(recorded(store)) == jobs


@pytest.mark.parametrize("stop", [["scontrol", "requeue"], ["scancel", "--signal=USR2"]])
def test_a_job_that_is_queued_again_goes_on_from_its_checkpoint(tmp_path, cluster, stop) -> None:
    changes = {"eval": [4], "tasks": [{"task": "toy", "recipe": {"steps": 50}}]}
    _, whole = run_toy(tmp_path, "whole", **changes)
    store = Store(tmp_path / "jobs")
    slow = {**cluster, "TOY_PAUSE": "0.2"}
    # the process that decodes pictures gets the signal too, and must not queue the job a second time
    process = start(tmp_path, write_suite(tmp_path, **changes), slow, "--workers", "1")
    until(lambda: list(store.folder.glob("checkpoints/*.partial.pt")))
    job = recorded(store)[0].job
    slurm(cluster, *stop, job)
    until(lambda: "Restarts=1" in slurm(cluster, "scontrol", "show", "job", job))
    # Slurm waits two minutes before it starts a job again
    until(lambda: "JobState=PENDING" in slurm(cluster, "scontrol", "show", "job", job))
    slurm(cluster, "scontrol", "update", f"JobId={job}", "StartTime=now")
    code, said = end(process)
    assert code == 0 and "1 run" in said, said
    assert same(store.rows(), whole) and len(store.rows()) == len(whole)
    assert store.rows()[0]["training"]["resumed_at"][0] > 0 and not list(store.folder.rglob("*.partial.pt"))


def test_a_killed_job_is_told_and_the_same_command_finishes_it(tmp_path, cluster) -> None:
    changes = {"eval": [4], "tasks": [{"task": "toy", "recipe": {"steps": 50}}]}
    _, whole = run_toy(tmp_path, "whole", **changes)
    suite, store = write_suite(tmp_path, **changes), Store(tmp_path / "jobs")
    process = start(tmp_path, suite, {**cluster, "TOY_PAUSE": "0.2"})
    until(lambda: list(store.folder.glob("checkpoints/*.partial.pt")))
    slurm(cluster, "scancel", "--signal=KILL", recorded(store)[0].job)
    code, said = end(process)
    assert code == 1 and "ended and left no row" in said and "_0_log.err" in said, said
    code, said = end(start(tmp_path, suite, cluster))
    assert code == 0 and "1 jobs submitted" in said and same(store.rows(), whole), said
    assert store.rows()[0]["training"]["resumed_at"][0] > 0


def test_ctrl_c_leaves_the_jobs_and_the_same_command_waits_for_them(tmp_path, cluster) -> None:
    suite, store = write_suite(tmp_path, eval=[4]), Store(tmp_path / "jobs")
    process = start(tmp_path, suite, {**cluster, "TOY_PAUSE": "0.3"})
    assert "1 jobs submitted" in process.stdout.readline()
    process.stdout.readline()
    process.send_signal(2)
    code, said = end(process)
    assert code == 130 and "the jobs go on" in said and "scancel --name" in said, said
    code, said = end(start(tmp_path, suite, cluster))
    assert code == 0 and "0 jobs submitted, 1 queued before" in said and len(store.rows()) == 1, said


def test_processes_of_a_job_share_its_cells_or_train_each_together(tmp_path, cluster) -> None:
    _, whole = run_toy(tmp_path, "whole", seeds=[0, 1])
    suite = write_suite(tmp_path, seeds=[0, 1])
    for number, (more, count) in enumerate({(): 1, ("--together",): 2}.items()):
        store = Store(tmp_path / f"jobs{number}")
        more = ("--jobs", "2", "--cpus", "1", "--batch", "5", "--out", str(store.folder), *more)
        code, said = end(start(tmp_path, suite, cluster, *more))
        assert code == 0 and f"{count} jobs submitted" in said and same(store.rows(), whole), said
        for row in store.rows():
            with np.load(store.folder / row["samples"]) as samples:
                assert samples["ids"].tolist() == list(range(32))


def test_what_slurm_refuses_is_said_in_one_line(tmp_path, cluster) -> None:
    code, said = end(start(tmp_path, write_suite(tmp_path), cluster, "--partition", "nowhere"))
    assert code == 2 and said.startswith("error: ") and "invalid partition specified: nowhere" in said
    assert len(said.splitlines()) == 1
