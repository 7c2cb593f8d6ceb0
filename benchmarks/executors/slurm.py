"""Cells as jobs of a Slurm cluster, submitted as arrays through submitit.

A job is told its cells by value, so that a suite that is edited while jobs wait changes none of them. It runs them as
any other runner would: claims keep it apart from others, and a job that was preempted, ran out of time or lost its node
is queued again and goes on from the last training checkpoint. Accounting (`sacct`) is not needed.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import submitit

from benchmarks.engine.identity import cell_key
from benchmarks.engine.plan import plan
from benchmarks.engine.suite import Cell, cell_task
from benchmarks.executors import Work
from benchmarks.executors.local import visible_gpus
from benchmarks.store import Store, key_of
from tasks.contract import TaskError

ROOT = Path(__file__).parents[2]
ARRAY = 1000  # jobs of an array where the cluster does not say its MaxArraySize (Slurm's default is 1001)
TIMEOUTS = 100  # times that a job may come back after its time is over; each time it is further on


@dataclass(frozen=True)
class Resources:
    """What to ask of the cluster for each job.

    `minutes`: time limit. `gpus`, `processes`: of a job, on each of its nodes; the processes share the job's cells, or
    with `together` train every cell as one process group. `cpus`: of each process, None: the cluster's default. `pack`:
    cells of a job. `parallel`: jobs of an array that run at once. `more`: further options of sbatch, True for those
    without a value.
    """

    partition: str | None = None
    minutes: int = 240
    gpus: int = 0
    cpus: int | None = None
    processes: int = 1
    together: bool = False
    pack: int = 1
    parallel: int = 256
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Submitted:
    """A job, the keys of its cells, and how many rows the folder had before it."""

    job: str
    cells: list[str]
    rows: int


class CellsJob:
    """What a job calls. Submitit pickles it by reference to this module; `checkpoint` is what is queued again.

    Example: `CellsJob(work, together=False)()` inside a job
    """

    def __init__(self, work: Work, together: bool):
        self.work, self.together = work, together

    def __call__(self) -> int:
        """Run the cells; the exit status of `run`.

        Raises: SystemExit after a SIGTERM, once the checkpoint of a training is written.
        """
        from benchmarks.engine.runner import Runner
        from benchmarks.engine.running.lines import Lines, write_line
        from benchmarks.engine.running.processes import end_group, end_process

        # else the error of a process that decodes and dies of the signal would become a failed row
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        # Slurm signals every process of the job; one that decodes pictures would queue the job a second time
        os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN))
        _stay_until_sigterm()
        for module in self.work.suite.imports:
            importlib.import_module(module)
        job = submitit.JobEnvironment()
        if job.num_tasks > 1 and self.together:
            submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        elif job.num_tasks > 1 and (gpus := visible_gpus()):
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus[job.local_rank % len(gpus)]
        try:
            lines = Lines(write_line, several=job.num_tasks > 1)
            summary = Runner(self.work.suite, Store(self.work.out), self.work.data_root, self.work.options, lines).run()
            end_group()
        except KeyboardInterrupt:
            print("stopped; queued again, or by the same command, it goes on from here", flush=True)
            raise SystemExit(130) from None
        print("\n".join(summary.lines()), flush=True)
        if job.num_tasks > 1 and self.together:
            atexit.register(end_process)  # once submitit has written the status
        return summary.status

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """The same once more: rows and training checkpoints are in the folder."""
        return submitit.helpers.DelayedSubmission(self)


def _stay_until_sigterm() -> None:
    """Submitit's handler of USR2 queues the job again and leaves by SystemExit, which would be the cell's failure.

    Slurm ends such a job by SIGTERM, after which the step that runs is kept.
    """
    queue_again = signal.getsignal(signal.SIGUSR2)
    if not callable(queue_again):  # no submitit has set it
        return

    def preempted(number: int, frame: Any) -> None:
        with contextlib.suppress(SystemExit):
            queue_again(number, frame)

    signal.signal(signal.SIGUSR2, preempted)


def further_options(texts: Sequence[str]) -> dict[str, Any]:
    """Options of sbatch from `KEY=VALUE`, or `KEY` alone for those without a value.

    Raises: TaskError for an option that has no name or is set elsewhere.

    Example: `further_options(["mem=32G", "exclusive"])` is `{"mem": "32G", "exclusive": True}`
    """
    own = {"partition": "--partition", "time": "--time", "array": "--array-parallelism", "cpus-per-task": "--cpus"}
    fixed = ("output", "error", "open-mode", "job-name", "signal", "ntasks-per-node", "requeue", "no-requeue", "wait")
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip().lstrip("-").replace("_", "-")
        if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
            raise TaskError(f"--slurm {text!r} is not KEY=VALUE with an option of sbatch, such as mem=32G or qos=low")
        if name in own or name in fixed:
            raise TaskError(f"--slurm {text!r}: {f'use {own[name]}' if name in own else 'is set by this software'}")
        found[name] = value if equals else True
    return found


def job_name(work: Work) -> str:
    """The name of all jobs that write to the folder, by which `squeue` finds them."""
    return f"{re.sub(r'[^A-Za-z0-9_-]', '-', work.suite.name)}-{key_of({'out': str(work.out.resolve())})[:6]}"


def submit(work: Work, resources: Resources, waiting: Mapping[str, str]) -> list[Submitted]:
    """Give every cell that is to do to a job, but for those that a job in `waiting` (`{job: state}`) has already.

    Returns the jobs that have cells of this work, those of an earlier command among them.

    Raises: TaskError where there is no Slurm, or with what sbatch says; StoreError where results cannot be written.
    """
    store, root = Store(work.out.absolute()), work.data_root.absolute()
    store.check_writable()
    by_key: dict[str, list[Cell]] = {}
    for entry in plan(work.suite, store, root, **work.planned(bool(resources.gpus))):
        if entry.state == "to do":
            by_key.setdefault(cell_key(entry.cell, cell_task(entry.cell, root)), []).append(entry.cell)
    with store.locked("slurm"):
        known = [s for s in recorded(store) if s.job in waiting and by_key.keys() & set(s.cells)]
        taken = {key for s in known for key in s.cells}
        keys = [key for key in by_key if key not in taken]
        packs = [keys[i : i + resources.pack] for i in range(0, len(keys), resources.pack)]
        size = _array_size()
        for first in range(0, len(packs), size):
            batch = packs[first : first + size]
            calls = []
            for pack in batch:
                suite = replace(work.suite, cells=[cell for key in pack for cell in by_key[key]])
                calls.append(CellsJob(replace(work, suite=suite, out=store.folder, data_root=root), resources.together))
            ids = _sbatch(calls, store.folder / "slurm", job_name(work), resources)
            new = [Submitted(job, pack, len(store.entries())) for job, pack in zip(ids, batch, strict=True)]
            _record(store, new)
            known += new
    return known


def recorded(store: Store) -> list[Submitted]:
    """All jobs that were ever submitted for a folder, from OUT/slurm/jobs.jsonl."""
    path = store.folder / "slurm" / "jobs.jsonl"
    return (
        [Submitted(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
        if path.exists()
        else []
    )


def _record(store: Store, new: Sequence[Submitted]) -> None:
    with open(store.folder / "slurm" / "jobs.jsonl", "a", encoding="utf-8") as file:
        file.writelines(json.dumps(vars(s)) + "\n" for s in new)


def _array_size() -> int:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        said = subprocess.run(
            ["scontrol", "show", "config"], capture_output=True, encoding="utf-8", errors="replace", timeout=60
        ).stdout
        if found := re.search(r"MaxArraySize\s*=\s*(\d+)", said):
            return max(1, int(found[1]))
    return ARRAY


def _sbatch(calls: Sequence[CellsJob], folder: Path, name: str, resources: Resources) -> list[str]:
    """Ids of the jobs, in the order of `calls`."""
    executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=TIMEOUTS)
    # where the software is not installed, a job finds it as this process did; PYTHONPATH may be empty
    # and a `tasks.py` in the folder of the command is not taken for ours
    setup = [f"export PYTHONPATH={shlex.quote(str(ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}", "export PYTHONSAFEPATH=1"]
    asked: dict[str, Any] = {}
    if resources.cpus:
        setup.append(f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{resources.cpus}}}")
        # from Slurm 22.05 on, srun does not take it over from sbatch
        asked |= {"cpus_per_task": resources.cpus, "srun_args": [f"--cpus-per-task={resources.cpus}"]}
    if resources.partition:
        asked["partition"] = resources.partition
    if resources.gpus:
        asked["gpus_per_node"] = resources.gpus
    executor.update_parameters(
        job_name=name, time=resources.minutes, ntasks_per_node=resources.processes, setup=setup,
        array_parallelism=resources.parallel, signal_delay_s=min(90, 15 * resources.minutes),
        additional_parameters={"requeue": True, **resources.more}, **asked,
    )  # fmt: skip
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit prints there what it raises
            jobs = executor.submit_array(calls)
    except submitit.core.utils.FailedJobError as error:
        said = [line.removeprefix("sbatch: error: ").strip() for line in str(error).splitlines() if line.strip()]
        raise TaskError(f"sbatch: {'; '.join(said) or 'failed without a message'}") from None
    return [job.job_id for job in jobs]


def require_slurm() -> None:
    """Raises: TaskError where no job can be submitted from this machine."""
    missing = [tool for tool in ("sbatch", "squeue", "srun") if not shutil.which(tool)]
    if missing:
        raise TaskError(f"no {missing[0]} on this machine, so no Slurm to submit to; use --executor local")
