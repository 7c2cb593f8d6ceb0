"""Several processes on this machine, one for each GPU or an equal share of the CPU's threads."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from benchmarks.executors import Work

PIPED = "FLEXIVIT_PIPED"  # set: this process reads the helper's lines and shows them


def visible_gpus() -> list[str]:
    """The names by which `CUDA_VISIBLE_DEVICES` knows the GPUs that this process may use; torch is not imported.

    Example: `visible_gpus()` is `["0", "1"]`, and `[]` where there is none
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name.strip() not in ("", "-1")]
    try:
        asked = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        found = subprocess.run(asked, capture_output=True, encoding="utf-8", errors="replace", timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return found.stdout.split() if found.returncode == 0 else []


def places(jobs: int, device: str = "", share_gpus: bool = False) -> list[dict[str, str]]:
    """What to add to the environment of each of `jobs` processes, before it imports torch.

    Raises: ValueError for more processes than GPUs unless `share_gpus`.

    Example: `places(2, "cuda")` is `[{"CUDA_VISIBLE_DEVICES": "0", ...}, {"CUDA_VISIBLE_DEVICES": "1", ...}]`
    """
    if jobs == 1:
        return [{}]
    if "WORLD_SIZE" in os.environ:
        raise ValueError(f"--jobs {jobs} in a process group (torchrun), which shares every cell; use --jobs 1")
    # threads of several processes would fight for the same cores
    threads = {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // jobs))}
    shared = {k: v for k, v in threads.items() if k not in os.environ}
    gpus = visible_gpus() if device != "cpu" else []
    if not gpus:
        return [dict(shared) for _ in range(jobs)]
    if jobs > len(gpus) and not share_gpus:
        raise ValueError(f"--jobs {jobs} for {len(gpus)} visible GPUs; use --jobs {len(gpus)}, or say --share-gpus")
    return [shared | {"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(jobs)]


def run(work: Work, helpers: Sequence[Mapping[str, str]] = (), quiet: bool = False) -> int:
    """Run the cells in this process, and in one helper for each entry of `helpers` (additions to its environment).

    Args: quiet: only the summary is printed.

    Returns the exit status: 0 when every cell has its rows, 1 otherwise, 130 after Ctrl-C or SIGTERM, which stop the
    helpers too.
    """
    from benchmarks.engine.running.finished import finished
    from benchmarks.engine.running.interrupts import stopping
    from benchmarks.engine.running.lines import Lines, is_helper, to_parent, write_line
    from benchmarks.executors.screen import Screen
    from benchmarks.store import Store
    from tasks.data.checks.progress import progress_shown

    store, several = Store(work.out), bool(helpers) or is_helper()
    started: list[subprocess.Popen[str]] = []
    with contextlib.ExitStack() as stack:
        screen = None
        lines = Lines(write_line, several=several)
        if quiet:
            lines = Lines(lambda text: None, several=several)
        elif is_helper():
            lines = Lines(write_line, to_parent if PIPED in os.environ else None, several, PIPED in os.environ)
        elif sys.stdout.isatty():
            screen = stack.enter_context(Screen())
            lines = Lines(screen.say, screen.progress(0), several, terminal=True)
        try:
            with stopping(), progress_shown():
                asked = (work.suite, store, work.data_root, work.options, lines)
                if is_helper() or (summary := finished(*asked)) is None:
                    for number, more in enumerate(helpers, 1):
                        started.append(_helper(more, piped=screen is not None))
                        if screen is not None and started[-1].stdout is not None:
                            screen.follow(number, started[-1].stdout)
                    from benchmarks.engine.runner import Runner  # only now: it takes seconds to import
                    from benchmarks.engine.running.processes import end_group

                    summary = Runner(*asked).run()
                    for helper in started:
                        helper.wait()
                    end_group()
        except KeyboardInterrupt:
            _stop(started)
            stack.close()
            if not is_helper():
                print("stopped; the same command goes on from here", file=sys.stderr)
            _end_of_group(130)
            return 130
        except BaseException:
            _stop(started)
            raise
    if os.environ.get("RANK", "0") == "0" and not is_helper():  # of a process group, one speaks
        print("\n".join([*summary.lines(), f"rows: {store.path}"]))
    _end_of_group(summary.status)
    return summary.status


def _end_of_group(status: int) -> None:
    """A process of a group ends here and now: an interpreter that closes down waits for threads of gloo."""
    if "RANK" in os.environ:
        from benchmarks.engine.running.processes import end_process

        end_process(status)


def _helper(more: Mapping[str, str], piped: bool) -> subprocess.Popen[str]:
    """A second runner of the same command on the same folder; the claims on cells keep the two apart.

    In a process group of its own: a terminal's Ctrl-C reaches this process alone, which hands it on, once.
    """
    from benchmarks.engine.running.lines import HELPER

    environment = {**os.environ, **more, HELPER: "1", **({PIPED: "1"} if piped else {})}
    return subprocess.Popen(
        [sys.executable, *again(), "--jobs", "1"], stdin=subprocess.DEVNULL, env=environment, process_group=0,
        stdout=subprocess.PIPE if piped else None, encoding="utf-8", errors="replace",
    )  # fmt: skip


def again() -> list[str]:
    """What this process was started with, after the interpreter: a script, or `-m MODULE`; and its arguments."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return [*(["-m", spec.name] if spec is not None else sys.argv[:1]), *sys.argv[1:]]


def _stop(helpers: Sequence[subprocess.Popen[str]]) -> None:
    """Let the helpers end their step and write their checkpoints; a second signal to this process kills them."""
    from benchmarks.engine.running.interrupts import stopping

    for helper in helpers:
        helper.terminate()
    try:
        with stopping():
            for helper in helpers:
                helper.wait()
    except KeyboardInterrupt:
        for helper in helpers:
            helper.kill()
            helper.wait()
