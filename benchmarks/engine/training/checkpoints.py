"""Checkpoints of a running training: written whole, opened without running what is in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.engine.training.optimizers import Averaged
from benchmarks.store import write_atomically
from tasks.contract import TaskError


def save_checkpoint(
    path: Path,
    identity: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Averaged | None,
    training: Mapping[str, Any],
) -> None:
    """Write all that a resume needs. `identity`: of what moves the weights. `training`: what was done until now."""
    state = {
        "identity": identity, "model": model.state_dict(), "optimizer": optimizer.state_dict(),
        "average": average.values if average else None, "training": dict(training),
    }  # fmt: skip
    write_atomically(path, lambda partial: torch.save(state, partial))


def open_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """What a checkpoint holds; nothing in it is run.

    Raises: TaskError for a torn or foreign file.
    """
    place = "cpu" if device.type == "cpu" else device  # of a process group it is cpu:0, which no file can be read to
    try:
        return torch.load(path, map_location=place, weights_only=True)
    except Exception as error:  # pickle's, zip's and torch's own; their texts advise to run what is inside
        raise TaskError(f"{path} is torn or no checkpoint of ours ({type(error).__name__}); remove it") from error


def load_checkpoint(
    path: Path,
    identity: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Averaged | None,
    device: torch.device,
) -> dict[str, Any]:
    """Put a checkpoint in place; returns what was done until then.

    Raises: TaskError for a torn or foreign file, or one of another run.
    """
    state = open_checkpoint(path, device)
    if state["identity"] != identity:
        raise TaskError(f"{path} belongs to another recipe, schedule, seed or data set; remove it to train anew")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    if average:
        average.load(state["average"])
    return state["training"]
