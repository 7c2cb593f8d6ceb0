"""The verb `run`: a suite's cells, on this machine or as jobs of a cluster."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.cli.options import DataRoot, Device, EvalWeights, Limit, Only, Out, Set, SuiteName, folder_of, listed


class Where(StrEnum):
    local = "local"
    slurm = "slurm"


CLUSTER = "Cluster"  # the part of the help with what only `--executor slurm` reads


def run(
    suite: SuiteName = "demo",
    out: Out = None,
    data_root: DataRoot = Path("data"),
    settings: Set = None,
    only: Only = None,
    device: Device = "",
    limit: Limit = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes that share the cells, here (1) or in each job (one a GPU).")
    ] = None,
    share_gpus: Annotated[bool, typer.Option("--share-gpus", help="Several processes on one GPU.")] = False,
    precision: Annotated[str, typer.Option(help="no or bf16; default: bf16 on a GPU.")] = "",
    batch: Annotated[int | None, typer.Option(min=1, help="Images decoded at once in evaluation.")] = None,
    token_budget: Annotated[int | None, typer.Option(min=1, help="Tokens of a forward pass in evaluation.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that decode; default: none on a CPU, on a GPU all CPUs but one."),
    ] = None,
    every: Annotated[float, typer.Option(min=0, help="Seconds between checkpoints.")] = 60.0,
    compile: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="torch.compile the training step; default: on a GPU, long ones."),
    ] = None,
    eval_weights: EvalWeights = "",
    tracker: Annotated[
        list[str] | None,
        typer.Option(help="Send values of training and evaluation to tensorboard, wandb, mlflow, ...; repeated."),
    ] = None,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Pass over unreadable pictures; rows say how many.")
    ] = False,
    resident_gib: Annotated[
        float, typer.Option(min=0, help="GiB for small pictures held where the model computes, of tasks that offer it.")
    ] = 2.0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the summary alone.")] = False,
    executor: Annotated[Where, typer.Option(help="Here, or as jobs of a Slurm cluster.")] = Where.local,
    partition: Annotated[str | None, typer.Option(rich_help_panel=CLUSTER, help="Default: the cluster's.")] = None,
    time: Annotated[
        int, typer.Option(min=1, rich_help_panel=CLUSTER, help="Minutes of a job; then it is queued again and goes on.")
    ] = 240,
    gpus: Annotated[int, typer.Option(min=0, rich_help_panel=CLUSTER, help="GPUs of a job.")] = 0,
    cpus: Annotated[int | None, typer.Option(min=1, rich_help_panel=CLUSTER, help="CPUs of a process.")] = None,
    pack: Annotated[
        int | None, typer.Option(min=1, rich_help_panel=CLUSTER, help="Cells of a job; default: one a process.")
    ] = None,
    together: Annotated[
        bool, typer.Option("--together", rich_help_panel=CLUSTER, help="A job's processes train each cell together.")
    ] = False,
    array_parallelism: Annotated[
        int, typer.Option(min=1, rich_help_panel=CLUSTER, help="Jobs of an array that run at once.")
    ] = 256,
    slurm: Annotated[
        list[str] | None, typer.Option(rich_help_panel=CLUSTER, help="KEY=VALUE of sbatch, such as mem=32G; repeated.")
    ] = None,
    wait: Annotated[bool, typer.Option(rich_help_panel=CLUSTER, help="Wait for the jobs; Ctrl-C leaves them.")] = True,
) -> None:
    """Run a suite's cells; the same command again finishes what is missing.

    Example: run_all.py run mini/classification --data-root DATA --only backbone=flexivit_nano,train=8
    """
    from benchmarks.executors import Work, local

    here = executor is Where.local
    places = local.places(jobs or 1, device, share_gpus) if here else [{}]
    if here and (jobs or 1) > 1:
        os.environ["FLEXIVIT_JOBS"] = str(jobs)  # helpers inherit it
    os.environ.update(places[0])
    from benchmarks.engine.running.options import RunOptions, evaluation_weights
    from benchmarks.engine.suite import load_suite

    found = load_suite(suite, data_root, settings or [], listed(only))
    if tracker:
        from benchmarks.store.trackers import check_trackers

        check_trackers(tracker)
    evaluation_weights("cpu", "no", eval_weights)  # a wrong name is said once, before helpers start
    options = RunOptions(
        device, precision, every, batch, token_budget, workers, compile, tuple(tracker or ()), skip_broken,
        resident_gib, limit, eval_weights,
    )  # fmt: skip
    work = Work(found, folder_of(suite, out), data_root, options)
    if here:
        raise typer.Exit(local.run(work, places[1:], quiet))  # helpers start only now: a wrong name is said once
    from benchmarks.executors.slurm import Resources, further_options
    from benchmarks.executors.watch import run as run_jobs

    processes = jobs or max(1, gpus)
    resources = Resources(
        partition, time, gpus, cpus, processes, together, pack or (1 if together else processes), array_parallelism,
        further_options(slurm or []),
    )  # fmt: skip
    raise typer.Exit(run_jobs(work, resources, wait))
