"""The front door: run suites, list what there is, score predictions made anywhere.

python run_all.py run mini/classification --data-root DATA --out results/runs/mini
python run_all.py plan paper/fast_transfer --json
python run_all.py ls backbones --json
python run_all.py check task classification --data-root DATA
python run_all.py score segmentation --predictions DIR --annotations DIR --num-classes 150 --reduce-zero-label
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Container
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.cli.bench import bench
from benchmarks.cli.conformance import check_backbone, check_task
from benchmarks.cli.errors import run_verb
from benchmarks.cli.latency import latency
from benchmarks.cli.options import DataRoot, Device, EvalWeights, Limit, Only, Out, Set, SuiteName, folder_of, listed
from benchmarks.cli.report import AsJson, compare, report
from benchmarks.cli.run import run
from benchmarks.cli.score import score
from benchmarks.cli.use import use

app = typer.Typer(help=__doc__.splitlines()[0], no_args_is_help=True)
app.add_typer(score, name="score")
app.add_typer(use, name="use")
app.command()(run)
app.command()(bench)
app.command()(report)
app.command()(compare)
app.command()(latency)
check = typer.Typer(help="Check data, a task or a backbone before a long run.", no_args_is_help=True)
app.add_typer(check, name="check")
check.command(name="task")(check_task)
check.command(name="backbone")(check_backbone)


class Listing(StrEnum):
    backbones = "backbones"
    tasks = "tasks"
    suites = "suites"


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import PackageNotFoundError, version

        from benchmarks.store.environment import revision

        try:
            installed = version("flexivit-transfer")
        except PackageNotFoundError:  # a clone beside packages of the lock runs too
            installed = "not installed"
        print(f"flexivit-transfer {installed}, revision {revision() or 'unknown'}")
        raise typer.Exit


@app.callback()
def verbs(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")] = False,
) -> None:
    """Does one flexible ViT replace my fixed ones, on my task, at my budget?"""


@app.command(name="ls")
def list_(
    what: Listing,
    pattern: Annotated[str, typer.Argument(help="Wildcard; `timm:*dinov2*` lists timm's ViTs.")] = "*",
    as_json: AsJson = False,
) -> None:
    """List backbones, tasks or suites.  Example: run_all.py ls backbones 'flexivit_b*'"""
    rows = {Listing.backbones: _backbones, Listing.tasks: _tasks, Listing.suites: _suites}[what](pattern)
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    if not rows:
        raise ValueError(f"no {what.value} match {pattern!r}; try: run_all.py ls {what.value}")
    columns = list(rows[0])
    table = [columns, *([_shown(r[c]) for c in columns] for r in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        print("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip())


def _shown(value: Any) -> str:
    """A cell of a listing: what is not known is a dash."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value or "-")


def _backbones(pattern: str) -> list[dict[str, Any]]:
    from backbones import backbone_spec, list_backbones

    specs = [backbone_spec(name) for name in list_backbones(pattern)]
    keys = ("name", "image_size", "native_grid", "flexible", "trained_on", "weights", "licence")
    return [{k: getattr(s, k) for k in keys} for s in specs]


def _tasks(pattern: str) -> list[dict[str, Any]]:
    from tasks import TaskError, list_tasks, task_class

    found = []
    for name in list_tasks(pattern):
        try:
            made = task_class(name)
        except TaskError as error:  # of a stranger's package; all others still work
            print(f"warning: {error}; passed over", file=sys.stderr)
        else:
            found.append({"name": name, "class": f"{made.__module__}:{made.__name__}"})
    return found


def _suites(pattern: str) -> list[dict[str, Any]]:
    import fnmatch

    import yaml

    from benchmarks.engine.suite import list_suites

    found = {
        n: yaml.safe_load(p.read_text(encoding="utf-8"))
        for n, p in list_suites().items()
        if fnmatch.fnmatch(n, pattern)
    }
    return [
        {"name": name, "tasks": len(raw["tasks"]), "description": raw["description"]} for name, raw in found.items()
    ]


@app.command()
def plan(
    suite: SuiteName = "demo",
    out: Out = None,
    data_root: DataRoot = Path("data"),
    settings: Set = None,
    only: Only = None,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, or a device in the table of rates; default: as `run` would take.")
    ] = "",
    precision: Annotated[str, typer.Option(help="Of the run: no or bf16; default: bf16 on a GPU.")] = "",
    eval_weights: EvalWeights = "",
    skip_broken: Annotated[bool, typer.Option("--skip-broken", help="Count rows that passed over pictures.")] = False,
    limit: Limit = None,
    rates: Annotated[
        Path | None, typer.Option(help="Speeds measured by `bench --rates`; default: those of the package.")
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="Also which pictures and seeds would decide it: points for per cent.")
    ] = None,
    discordant: Annotated[
        float, typer.Option(min=0, max=100, help="Assumed where no rows are: per cent of samples two models differ in.")
    ] = 20.0,
    seed_sd: Annotated[float, typer.Option(min=0, help="Assumed where no rows are: points between runs.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Every cell: done, to do, or blocked and by what; its cost. Starts nothing.

    Example: run_all.py plan paper/transfer_table --data-root DATA --json
    """
    from benchmarks.cost.rates import FILE, device_here
    from benchmarks.engine.plan import plan as planned
    from benchmarks.engine.suite import load_suite, size_notes
    from benchmarks.store import Store
    from tasks.data.checks.progress import progress_shown

    found = load_suite(suite, data_root, settings or [], listed(only))
    for note in size_notes(found, data_root):
        print(f"note: {note}", file=sys.stderr)
    store, device = Store(folder_of(suite, out)), device or device_here()
    with progress_shown():
        cells = planned(
            found, store, data_root, device, True, rates or FILE, precision, skip_broken, limit, eval_weights
        )
    foreseen = []
    if margin is not None:
        from benchmarks.report.foresight import Assumptions, foresee

        foreseen = foresee(found, store, data_root, margin, Assumptions(discordant / 100, seed_sd / 100))
    if as_json:
        told = {"suite": found.name, "cells": [c.as_json() for c in cells]}
        print(json.dumps(told | ({"margins": [f.as_json() for f in foreseen]} if foreseen else {}), indent=1))
        return
    for entry in cells:
        hours = "" if entry.hours is None else f"  {entry.macs / 1e9:.0f} GMACs, about {entry.hours:.2f} h"
        print(f"{entry.state:8}{entry.cell.label}{hours}")
        for text in entry.notes:
            print(f"        {text}")
    for text in dict.fromkeys(m for c in cells for m in c.missing):
        print(f"missing: {text}")
    for text in dict.fromkeys(d for c in cells for d in c.downloads):
        print(f"download: {text}")
    counts = {s: sum(c.state == s for c in cells) for s in ("done", "to do", "blocked")}
    total = sum(c.hours or 0 for c in cells)
    kinds = {c.rate for c in cells if c.rate}
    how = "; an assumed speed, nothing was measured there (bench --rates)" if "assumed" in kinds else ""
    print(", ".join(f"{n} {s}" for s, n in counts.items()) + f"; about {total:.1f} h on {device}{how}")
    if foreseen:
        print("\n".join(["", *(f.line() for f in foreseen)]))
        if any(f.basis == "assumed" and f.decidable is not None for f in foreseen):
            print(f"assumed: models differ in {discordant:g} % of the samples, runs by {seed_sd:g} points (sd)")


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="pi_resize or representations.")],
    scale: Annotated[str, typer.Argument(help="demo, mini or paper.")] = "mini",
    data_root: DataRoot = Path("data"),
    out: Out = None,
    settings: Set = None,
    device: Device = "cpu",
) -> None:
    """A study of the backbone itself, on DATA/pretrain.  Example: run_all.py study pi_resize mini --data-root DATA"""
    from benchmarks.studies.settings import run_study

    folder = out or Path("results/runs/studies") / name
    run_study(name, scale, data_root / "pretrain", folder, device, settings or [])
    print((folder / "table.md").read_text(encoding="utf-8"))


@app.command()
def prepare(
    name: Annotated[str, typer.Argument(help="A pack, such as cars98; `check data` lists them.")],
    sources: Annotated[list[Path], typer.Option("--from", help="Folder or archive of the download; may be repeated.")],
    out: Annotated[Path, typer.Option(envvar="FLEXIVIT_DATA", help="Data root to build the pack in.")] = Path("data"),
) -> None:
    """Build a small pack from an official download, whole or not at all.

    Example: run_all.py prepare voc21 --from VOCdevkit --out DATA
    """
    from benchmarks.prepare import prepare as build

    for path in build(name, sources, out):
        print(path)
    print(f"try: run_all.py check data {name} --data-root {out}")


@check.command(name="data")
def check_data(
    names: Annotated[
        list[str] | None, typer.Argument(help="Data sets, folders or files of your own, or one suite; none: all known.")
    ] = None,
    data_root: DataRoot = Path("data"),
    only: Only = None,
    as_json: AsJson = False,
) -> None:
    """Is the data there, whole and right? Looks at every picture and label as a run would, and remembers it.

    Example: run_all.py check data cars98 my/photos/ --data-root DATA
    """
    from benchmarks.engine.suite import list_suites
    from benchmarks.prepare.check import check_sets, known_sets
    from tasks.data.checks.progress import progress_shown

    names, known = names or [], {name for _, name in known_sets()}
    if len(names) == 1 and names[0] not in known and _is_suite(names[0], data_root, list_suites()):
        _check_suite(names[0], data_root, only)
    found = []
    with progress_shown():
        for one in check_sets([_under(name, data_root) for name in names], data_root):
            found.append(one)
            if not as_json:
                print("\n".join(one.lines()), flush=True)
    if as_json:
        import dataclasses

        print(json.dumps([dataclasses.asdict(one) for one in found], indent=1))
    else:
        print(", ".join(f"{sum(one.state == s for one in found)} {s}" for s in ("ok", "missing", "wrong")))
    # all sets are never there; only what is wrong, or was asked for by name, makes a failure
    raise typer.Exit(int(any(one.state == "wrong" or (names and one.state != "ok") for one in found)))


def _is_suite(name: str, data_root: Path, suites: Container[str]) -> bool:
    """A name of a suite, or a YAML file that has tasks: a set card is YAML too."""
    import yaml

    if name in suites:
        return True
    path = Path(name)
    if path.suffix not in (".yaml", ".yml") or (data_root / name).is_file() and not path.is_file():
        return False
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return True  # the reader of suites says what is the matter
    return not (isinstance(content, dict) and "licence" in content)


def _under(name: str, data_root: Path) -> str:
    """A path relative to the data root; paths from here are taken too where nothing of the name is there."""
    here = Path(name)
    if not here.exists() or (data_root / name).exists():
        return name
    return os.path.relpath(here, data_root) + "/" * here.is_dir()


def _check_suite(suite: str, data_root: Path, only: list[str] | None) -> None:
    from benchmarks.engine.plan import missing_of
    from benchmarks.engine.suite import cell_task, load_suite
    from tasks.data.checks.progress import progress_shown

    found = load_suite(suite, data_root, only=listed(only))
    with progress_shown():
        missing = dict.fromkeys(m for c in found.cells for m in missing_of(cell_task(c, data_root), c.splits))
    for text in missing:
        print(f"missing: {text}")
    print(f"{len(missing)} missing" if missing else "all there")
    raise typer.Exit(1 if missing else 0)


def main() -> None:
    """Run a verb; what a user can mend is one line on standard error and exit status 2."""
    sys.exit(run_verb(app))
