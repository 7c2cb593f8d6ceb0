"""The verbs `check task` and `check backbone`: does a plug-in keep the contract?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.cli.options import DataRoot

Options = Annotated[str, typer.Option(help="Its options, as JSON or YAML.")]


def check_task(
    name: Annotated[str, typer.Argument(help="A task's name or module:Class.")],
    data_root: DataRoot = Path("data"),
    options: Options = "{}",
    grids: Annotated[str, typer.Option(help="Two grids, separated by a comma.")] = "4,8",
    backbone: Annotated[str, typer.Option(help="With random weights.")] = "flexivit_nano",
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Change every option, resume, and train with two processes.")
    ] = False,
) -> None:
    """Does an adapter keep the contract?  Example: run_all.py check task my_package:Depth --thorough"""
    from benchmarks.engine.conformance import check_task as prove
    from tasks import build_task

    task = build_task(name, data_root, _mapping(options))
    _tell(prove(task, _grids(grids) or (4, 8), backbone, thorough))


def check_backbone(
    name: Annotated[str, typer.Argument(help="A backbone's name, a file, or module:Class.")],
    options: Options = "{}",
    grids: Annotated[
        str, typer.Option(help="Two grids, separated by a comma; default: its own and a coarser one.")
    ] = "",
) -> None:
    """Does a backbone keep the contract?  Example: run_all.py check backbone my_package:Encoder"""
    from benchmarks.engine.conformance import check_backbone as prove

    _tell(prove(name, _grids(grids), _mapping(options)))


def _mapping(text: str) -> dict[str, Any]:
    from benchmarks.engine.suite.reading import read_value

    found = read_value(text)
    if not isinstance(found, dict):
        raise ValueError(f"--options {text!r} is not a mapping, such as {{data: cars98}}")
    return found


def _grids(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(g) for g in text.split(",")) if text else ()
    except ValueError:
        raise ValueError(f"--grids {text!r} is not integers separated by commas, such as 4,8") from None


def _tell(lines: list[str]) -> None:
    for line in lines:
        print(line)
    raise typer.Exit(int(any(line.startswith("FAIL") for line in lines)))
