"""Waiting for jobs of a cluster: what `squeue` says of them, and what the rows say when they are over."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence

from benchmarks.engine.identity import cell_key
from benchmarks.engine.plan import plan
from benchmarks.engine.running.summary import Summary
from benchmarks.engine.suite import cell_task
from benchmarks.executors import Work
from benchmarks.executors.slurm import Resources, Submitted, job_name, require_slurm, submit
from benchmarks.store import Store
from tasks.contract import TaskError

POLL = (1.0, 15.0)  # seconds between questions to Slurm, at first and at most; the controller serves a whole cluster
SAY_EVERY = 60.0  # seconds between lines of progress where nothing has changed


def run(work: Work, resources: Resources, wait: bool = True) -> int:
    """Submit what is to do and no job has yet; wait for it where asked.

    Returns the exit status: 0 when every cell has its rows (without `wait`: when all is submitted), 1 otherwise, 130
    after Ctrl-C, which leaves the jobs as they are.

    Raises: TaskError where there is no Slurm, or with what it says.

    Example: `run(work, Resources(partition="gpu", gpus=1, cpus=8))`
    """
    require_slurm()
    store, name = Store(work.out), job_name(work)
    before = queue(name)
    jobs = submit(work, resources, before)
    again = sum(j.job in before for j in jobs)
    if jobs:
        cells = sum(len(j.cells) for j in jobs)
        counts = f"{len(jobs) - again} jobs submitted, {again} queued before"
        print(f"{counts}, for {cells} cells; logs: {store.folder / 'slurm'}")
    hint = f"squeue --name {name} shows them, scancel --name {name} ends them; the same command waits for them"
    if jobs and not wait:
        print(hint)
        return 0
    try:
        watch([j.job for j in jobs], lambda: queue(name), lambda text: print(text, flush=True))
    except KeyboardInterrupt:
        print(f"the jobs go on; {hint}", file=sys.stderr)
        return 130
    summary = outcome(work, jobs, bool(resources.gpus))
    print("\n".join([*summary.lines(), f"rows: {store.path}"]))
    return summary.status


def queue(name: str) -> dict[str, str]:
    """`{job: state}` of this user's jobs of that name that are not over; states as `RUNNING`, or `PENDING Priority`.

    Raises: TaskError with what squeue says, where it does not answer.
    """
    asked = ["squeue", "--user", str(os.getuid()), "--name", name, "--array", "--noheader", "--format", "%i %T %r"]
    try:
        found = subprocess.run(asked, capture_output=True, encoding="utf-8", errors="replace", timeout=120)
    except subprocess.TimeoutExpired:
        raise TaskError("squeue does not answer") from None
    if found.returncode:
        said = found.stderr.strip().splitlines() or ["no message"]
        raise TaskError(f"squeue: {said[-1]}")
    jobs = {}
    for line in found.stdout.splitlines():
        job, state, reason = line.split(maxsplit=2)
        jobs[job] = f"{state} {reason}" if state == "PENDING" else state
    return jobs


def watch(jobs: Sequence[str], ask: Callable[[], dict[str, str]], say: Callable[[str], None]) -> None:
    """Return when none of the jobs is queued or running any more; meanwhile tell how many are done, and the time left.

    A controller that does not answer is asked again.
    """
    started, said_at, told, pause = time.monotonic(), 0.0, "", POLL[0]
    while jobs:
        try:
            states = ask()
        except TaskError as error:
            say(f"  {error}; asking again")
        else:
            left = [states[j] for j in jobs if j in states]
            text, now = progress(len(jobs), left), time.monotonic()
            if text != told or now - said_at > SAY_EVERY:
                say(f"  {text}{_rate(len(jobs) - len(left), len(left), now - started)}")
                told, said_at = text, now
            if not left:
                return
        time.sleep(pause)
        pause = min(pause * 1.2, POLL[1])


def progress(count: int, left: Sequence[str]) -> str:
    """One line: `3 of 8 jobs done, 2 running, 3 pending (Resources)`."""
    states = Counter(s.split()[0].lower() for s in left)
    reasons = dict.fromkeys(s.split(maxsplit=1)[1].strip("()") for s in left if s.startswith("PENDING "))
    why = ", ".join(r for r in reasons if r != "None")
    parts = [f"{n} {s}" + (f" ({why})" if why and s == "pending" else "") for s, n in sorted(states.items())]
    return ", ".join([f"{count - len(left)} of {count} jobs done", *parts])


def _rate(done: int, left: int, seconds: float) -> str:
    if not done or not left:
        return ""
    return f"; {3600 * done / seconds:.1f} jobs an hour, {left * seconds / done / 60:.1f} min left"


def outcome(work: Work, jobs: Sequence[Submitted], gpus: bool = False) -> Summary:
    """What became of the cells, by their rows: those of `jobs` ran, or failed, or left nothing but a log."""
    store, summary = Store(work.out), Summary()
    of = {key: j for j in jobs for key in j.cells}
    entries = store.entries()
    for entry in plan(work.suite, store, work.data_root, **work.planned(gpus)):
        cell, key = entry.cell, cell_key(entry.cell, cell_task(entry.cell, work.data_root))
        job = of.get(key)
        # an error of an earlier command is none of a job's
        before = job.rows if job else 0
        since = entries[before].offset if before < len(entries) else math.inf
        failed = [e for e in store.entries(key) if not e.ok and e.offset >= since]
        if entry.state == "blocked":
            summary.blocked.append((cell.label, entry.missing[0]))
        elif entry.state == "done":
            (summary.ran if job else summary.done).append(cell.label)
        elif failed:
            summary.failed.append((cell.label, store.row(failed[-1]).error or "failed"))
        else:
            log = store.folder / "slurm" / f"{job.job}_0_log.err" if job else store.folder / "slurm"
            summary.failed.append((cell.label, f"its job ended and left no row; see {log}"))
    return summary
