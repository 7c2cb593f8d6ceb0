"""Options that several verbs take, and how they are read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

SuiteName = Annotated[str, typer.Argument(help="A suite's name (see: ls suites) or the path of a .yaml file.")]
DataRoot = Annotated[Path, typer.Option(envvar="FLEXIVIT_DATA", help="Folder of the data sets.")]
Out = Annotated[Path | None, typer.Option(help="Folder of results; default results/runs/SUITE.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, such as recipe.steps=50 or seeds=[0,1].")]
Only = Annotated[
    list[str] | None,
    typer.Option(help="Cells with task=, backbone=, train=, seed=, data=, protocol=, or any setting; wildcards, a|b."),
]
Limit = Annotated[
    int | None, typer.Option(min=1, help="Smoke test: evaluate so many samples of a split; its rows stand apart.")
]
Device = Annotated[str, typer.Option(help="cpu or cuda; default: cuda where there is one.")]
EvalWeights = Annotated[
    str, typer.Option(help="Of the backbone in evaluation, float32 or bf16; default: bf16 on a GPU in bf16.")
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Import tasks and backbones that rows name as module:callable: they are code.")
]


def folder_of(suite: str, out: Path | None) -> Path:
    """The folder of results.  Example: `folder_of("mini/detection", None)` is `results/runs/mini_detection`"""
    return out or Path("results/runs") / suite.removesuffix(".yaml").replace("/", "_")


def listed(only: list[str] | None) -> list[str]:
    """`["task=a,seed=0", "train=8"]` to `["task=a", "seed=0", "train=8"]`; `train=random:4,8` stays whole."""
    parts = (part.strip(" ,") for text in only or [] for part in re.split(r",(?=\s*\w+=)", text))
    return [part for part in parts if part]
