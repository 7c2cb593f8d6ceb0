"""A text tower handed on: what a run of locked-image tuning has left, as the start of another model."""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contract import TaskError
from tasks.data.errors import DataError, Missing, Wrong, nearest
from tasks.text.sizes import SMALL, names_in_detection, trained_tower
from tasks.text.weights import is_file, part_of, read_state

if TYPE_CHECKING:
    from torch import nn

PREFIX = "run:"
KEYS = ("backbone", "train_grid", "seed", "suite", "data", "preset")


def run_asked(weights: str) -> tuple[Path, dict[str, str]] | None:
    """Folder and wanted values of `run:FOLDER,key=value,...`; None for other weights.

    Raises: TaskError for a key that does not tell trainings apart.

    Example: `run_asked("run:results/runs/lit,train_grid=8")` is `(Path("results/runs/lit"), {"train_grid": "8"})`
    """
    if not weights.startswith(PREFIX):
        return None
    folder, *wanted = weights.removeprefix(PREFIX).split(",")
    pairs = dict(part.partition("=")[::2] for part in wanted)
    for key in pairs:
        if key not in KEYS:
            raise TaskError(f"{weights}: no key {key!r}; nearest: {', '.join(nearest(key, KEYS) or KEYS)}")
    return Path(folder), pairs


@dataclass(frozen=True)
class Handed:
    """The towers that a retrieval run of a backbone has left, as the start of a model with `text` and `backbone`.

    Args:
        weights: `run:FOLDER`, with `,key=value` where the folder holds several trainings. name: of the text tower.
        backbone, seed: of the cell that asks; the run's are the same unless `weights` says otherwise.

    Example: `Handed("run:results/runs/mini_retrieval,train_grid=8", "nano", "flexivit_nano", 0).lacking()`
    """

    weights: str
    name: str
    backbone: str
    seed: int

    def lacking(self) -> list[DataError]:
        """Why the weights cannot be had: no run, no training of this backbone and seed, several, or another tower."""
        try:
            path, row = self._found()
        except DataError as error:
            return [error]
        return self._another_tower(path.parent.parent, row)

    def _another_tower(self, folder: Path, row: Mapping[str, Any]) -> list[DataError]:
        """What is the matter where the run has trained another text tower than is asked for, by names and widths."""
        try:
            name, width = trained_tower(row.get("options", {}))
        except (KeyError, TypeError):  # a row of others: loading compares shapes
            return []
        if self.name in (fitting := names_in_detection(name, width)):
            return []
        told = f"{name} of width {width}" if width else name
        towers = f"options.text must be {' or '.join(fitting)}"
        none = f"no detector takes {name}; tune one of {', '.join(SMALL)}, or of open_clip"
        advice = towers if fitting else none
        return [Wrong(f"has trained the text tower {told}, not {self.name}", path=folder, advice=advice)]

    def content(self) -> str:
        """Hash of the weights' file."""
        path = self._found()[0]
        about = path.stat()
        return _hash(path, about.st_size, about.st_mtime_ns)

    def told(self) -> str:
        """What a row says of its start."""
        path, row = self._found()
        return f"{row.get('label')} of {path.parent.parent}, {self.content()}"

    def load(self, model: nn.Module) -> None:
        """Put the towers into a new model: the text tower, and the image tower where the run has trained it.

        Raises: TaskError where they do not fit, or where the run looked through another image tower of the same name.
        """
        from tasks.text.towers import fit_text

        path, row = self._found()
        state = read_state(path)
        image, encoder = part_of(state, "backbone."), model.backbone
        if image:
            encoder.load_state_dict(image)
        elif self._is_other(row, encoder):
            raise TaskError(f"{path}: was tuned to other weights of {self.backbone}; run the retrieval suite again")
        fit_text(model.text, self.name, part_of(state, "text."), path)

    def _is_other(self, row: Mapping[str, Any], encoder: Any) -> bool:
        """Whether the run looked through an image tower of the same name with other weights."""
        if row["backbone"] != self.backbone or not row.get("weights_hash") or not hasattr(encoder, "weights_hash"):
            return False
        return row["weights_hash"] != encoder.weights_hash()

    def _found(self) -> tuple[Path, Mapping[str, Any]]:
        """The weights' file and the newest row of the one training that is meant."""
        asked = run_asked(self.weights)
        assert asked is not None, self.weights
        folder, wanted = asked
        wanted = {"backbone": self.backbone, "seed": str(self.seed), **wanted}
        rows = _rows(folder)
        mine = [r for r in rows if all(fnmatch.fnmatch(_value(r, k), v) for k, v in wanted.items())]
        told = ", ".join(f"{k} {v}" for k, v in wanted.items())
        if not mine:
            there = sorted({", ".join(f"{k} {_value(r, k)}" for k in wanted) for r in rows})
            advice = f"it has: {'; '.join(there[:6])}" if there else "run a suite with the task retrieval into it"
            raise Missing(f"no trained text tower of {told}", path=folder, advice=advice)
        several = sorted({f"train_grid {_value(r, 'train_grid')}, data {_value(r, 'data')}" for r in mine})
        if len(several) > 1:
            reason = f"has {len(several)} trainings of {told}: {'; '.join(several)}"
            raise Wrong(reason, path=folder, advice=f"name one: {PREFIX}{folder},train_grid=...")
        path = folder / "checkpoints" / Path(f"{mine[-1].get('train_key')}.pt").name
        if not path.is_file():
            raise Missing("the weights of the run are gone", path=path, advice="run its suite again")
        return path, mine[-1]


def start_of(weights: str, name: str, backbone: str, seed: int) -> Handed | FromFile | None:
    """The start that a value of the option `text_weights` names; None: nothing is loaded."""
    if run_asked(weights):
        return Handed(weights, name, backbone, seed)
    return FromFile(weights, name) if weights not in ("", "scratch") else None


@dataclass(frozen=True)
class FromFile:
    """A text tower of a file of ours or of open_clip's tag, as the start of a model with `text`."""

    weights: str
    name: str

    def lacking(self) -> list[DataError]:
        return []  # the task's own `missing` looks: no backbone is needed for it

    def content(self) -> str:
        """Hash of a file; a tag names its weights once and for all."""
        if not is_file(self.weights):
            return ""
        about = Path(self.weights).stat()
        return _hash(Path(self.weights), about.st_size, about.st_mtime_ns)

    def told(self) -> str:
        return " ".join(filter(None, (self.weights, self.content())))

    def load(self, model: nn.Module) -> None:
        from tasks.text.towers import load_text

        load_text(model.text, self.name, self.weights)


@functools.lru_cache(maxsize=64)
def _hash(path: Path, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _rows(folder: Path) -> list[dict[str, Any]]:
    """Successful rows of trained retrieval, oldest first; what is no row is passed over."""
    path = folder / "rows.jsonl"
    if not path.is_file():
        raise Missing("no rows.jsonl of a run", path=folder, advice="run a suite with the task retrieval into it")
    about = path.stat()
    return _read(path, about.st_size, about.st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _read(path: Path, size: int, changed: int) -> list[dict[str, Any]]:
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if not isinstance(row, dict) or not isinstance(row.get("options", {}), dict):
            continue
        if (row.get("task"), row.get("status")) == ("retrieval", "ok") and row.get("steps"):
            found.append(row)
    return found


def _value(row: Mapping[str, Any], key: str) -> str:
    if key in ("data", "preset"):
        return str(row.get("options", {}).get(key, ""))
    return str(row.get(key))
