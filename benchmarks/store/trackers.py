"""Values of training and evaluation for TensorBoard, Weights & Biases and others, through accelerate's trackers."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.store.failures import one_line
from benchmarks.store.row import Row

POINTS = 1000  # at most so many of a training curve, evenly apart
PACKAGES = {"comet_ml": "comet-ml"}  # where the package is called otherwise than the tracker
NAME_OF_RUN = {"wandb": "name", "mlflow": "run_name", "swanlab": "experiment_name", "trackio": "name"}


def check_trackers(names: Sequence[str]) -> None:
    """Raises: ValueError for a tracker that accelerate does not have, or whose package is not installed."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            near = difflib.get_close_matches(name, LOGGER_TYPE_TO_CLASS, 1)
            told = f"nearest: {near[0]}" if near else f"there are: {', '.join(sorted(LOGGER_TYPE_TO_CLASS))}"
            raise ValueError(f"no tracker {name!r}; {told}")
        if name not in map(str, get_available_trackers()):
            raise ValueError(f"--tracker {name} needs its package: pip install {PACKAGES.get(name, name)}")


class Trackers:
    """The trackers of a run; every cell is a run of theirs, under the suite's name as project.

    What a tracker cannot take (no network, a full disk) is said, and costs neither a cell nor the other trackers.

    Example::

        trackers = Trackers(["tensorboard"], Path("results/runs/demo/trackers"), "demo", print)
        trackers.start("5d41402abc4b2a76", "classification/scenes flexivit_nano", {"seed": 0})
        trackers.training(1, 100, {"loss": 2.3})
        trackers.finish()
    """

    def __init__(self, names: Sequence[str], folder: Path, project: str, say: Callable[[str], None]):
        self.names, self.folder, self.project, self.say = tuple(dict.fromkeys(names)), folder, project, say
        self._open: dict[str, Any] = {}

    def start(self, key: str, label: str, config: Mapping[str, Any]) -> None:
        """A cell begins. `key` names its files, `label` is for people, `config` what it was asked."""
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        self.finish()
        for name in self.names:
            with _Told(self, name):
                kind = LOGGER_TYPE_TO_CLASS[name]
                more = {NAME_OF_RUN[name]: label} if name in NAME_OF_RUN else {}
                if name == "tensorboard":
                    tracker = kind(key, self.folder / name)  # a folder a cell, that is how it tells runs apart
                elif kind.requires_logging_directory:
                    tracker = kind(self.project, self.folder / name, **more)
                else:
                    tracker = kind(self.project, **more)
                tracker.start()
                self._open[name] = tracker
                tracker.store_init_configuration({"label": label, **_flat(config)})

    def training(self, step: int, steps: int, values: Mapping[str, float]) -> None:
        """Values of a training step, `step` from 1; of long trainings every so many are kept."""
        if self._open and (step % max(1, math.ceil(steps / POINTS)) == 0 or step == steps):
            self._log({f"train/{name}": value for name, value in values.items()}, step)

    def evaluation(self, rows: Sequence[Row]) -> None:
        """Metrics of successful rows, by split and grid."""
        if self._open:
            found = {
                f"{row.split}/{name}/grid {row.eval_grid}{_view(row)}": value
                for row in rows
                for name, value in row.metrics.items()
                if value is not None
            }
            self._log(found, max((row.steps or 0 for row in rows), default=0))

    def finish(self) -> None:
        """The cell is over, however it ended."""
        for name in list(self._open):
            with _Told(self, name):
                self._open.pop(name).finish()

    def _log(self, values: Mapping[str, float], step: int) -> None:
        for name in list(self._open):
            with _Told(self, name):
                self._open[name].log(dict(values), step=step)


class _Told:
    """Turns a tracker's error into a line; the tracker is left out for the rest of the cell."""

    def __init__(self, trackers: Trackers, name: str):
        self.trackers, self.name = trackers, name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool:
        if error is None or not isinstance(error, Exception):
            return False
        self.trackers._open.pop(self.name, None)
        self.trackers.say(f"  tracker {self.name} is left out of this cell: {one_line(error)}")
        return True


def _view(row: Row) -> str:
    more = [row.resize] * (row.resize not in (None, "pi")) + [f"{k}={v}" for k, v in row.view_options.items()]
    return f" ({', '.join(map(str, more))})" if more else ""


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"recipe": {"lr": 1}}` to `{"recipe.lr": 1}`: trackers take numbers and texts."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        elif value is not None:
            flat[f"{prefix}{name}"] = value if isinstance(value, bool | int | float | str) else str(value)
    return flat
