"""Trackers get values of training and evaluation; what they cannot take costs nothing else."""

from pathlib import Path

import pytest
from accelerate import tracking

from benchmarks.store import Row
from benchmarks.store.trackers import Trackers, check_trackers


class Memory(tracking.GeneralTracker):
    """A tracker of accelerate's interface that keeps what it is given."""

    name, requires_logging_directory, made = "memory", False, []

    def __init__(self, run_name: str, **more: object):
        super().__init__()
        self.run_name, self.more, self.config, self.values, self.finished = run_name, more, {}, [], False
        Memory.made.append(self)

    tracker = property(lambda self: self)

    def store_init_configuration(self, values: dict) -> None:
        self.config = values

    def log(self, values: dict, step: int | None = None, **more: object) -> None:
        self.values.append((step, values))

    def finish(self) -> None:
        self.finished = True


class Offline(Memory):
    name = "offline"

    def log(self, values: dict, step: int | None = None, **more: object) -> None:
        raise ConnectionError("no route to host")


@pytest.fixture
def made(monkeypatch) -> list[Memory]:
    for kind in (Memory, Offline):
        monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, kind.name, kind)
    monkeypatch.setattr(Memory, "made", [])
    return Memory.made


def row(grid: int, **more: object) -> Row:
    return Row(
        task="toy", backbone="tiny", split="test", eval_grid=grid, row_key="a", metrics={"top1": 0.5, "ap": None},
        resize="pi", steps=40, **more,
    )  # fmt: skip


def test_values_of_training_and_evaluation_arrive(made, tmp_path) -> None:
    trackers = Trackers(["memory", "memory"], tmp_path, "toy", print)
    trackers.training(1, 4, {"loss": 9.0})  # before any cell: nowhere to go
    trackers.start("key", "toy tiny", {"seed": 0, "recipe": {"lr": 0.1, "candidates": []}, "flexible": None})
    for step in range(1, 2501):
        trackers.training(step, 2500, {"loss": 1 / step})
    trackers.evaluation([row(4), row(8, view_options={"neighbours": 5})])
    trackers.finish()
    (only,) = made
    assert only.run_name == "toy" and only.finished
    assert only.config == {"label": "toy tiny", "seed": 0, "recipe.lr": 0.1, "recipe.candidates": "[]"}
    steps = [step for step, _ in only.values[:-1]]
    assert steps == [*range(3, 2500, 3), 2500] and only.values[0][1] == {"train/loss": 1 / 3}
    assert only.values[-1] == (40, {"test/top1/grid 4": 0.5, "test/top1/grid 8 (neighbours=5)": 0.5})


def test_a_tracker_that_fails_is_said_once_and_costs_the_others_nothing(made, tmp_path) -> None:
    said: list[str] = []
    trackers = Trackers(["offline", "memory"], tmp_path, "toy", said.append)
    for cell in "ab":
        trackers.start(cell, cell, {})
        for step in (1, 2):
            trackers.training(step, 2, {"loss": 0.5})
    trackers.finish()
    line = "  tracker offline is left out of this cell: ConnectionError: no route to host"
    assert said == [line, line]  # once a cell
    assert [len(m.values) for m in made if type(m) is Memory] == [2, 2] and all(m.finished for m in made[1::2])


def test_an_unknown_or_absent_tracker_is_one_line(monkeypatch) -> None:
    with pytest.raises(ValueError, match="no tracker 'tensorbord'; nearest: tensorboard"):
        check_trackers(["tensorbord"])
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: [])
    with pytest.raises(ValueError, match="--tracker comet_ml needs its package: pip install comet-ml"):
        check_trackers(["comet_ml"])


def test_tensorboard_has_a_folder_a_cell(tmp_path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    check_trackers(["tensorboard"])
    trackers = Trackers(["tensorboard"], tmp_path, "toy", print)
    trackers.start("key", "toy tiny", {"seed": 0})
    for step in (1, 2):
        trackers.training(step, 2, {"loss": 1.5 * step})
    trackers.evaluation([row(4)])
    trackers.finish()
    assert [p.name for p in (tmp_path / "tensorboard").iterdir()] == ["key"]
    kept = EventAccumulator(str(Path(tmp_path) / "tensorboard" / "key"))
    kept.Reload()
    assert [(e.step, e.value) for e in kept.Scalars("train/loss")] == [(1, 1.5), (2, 3.0)]
    assert [(e.step, e.value) for e in kept.Scalars("test/top1/grid 4")] == [(40, 0.5)]
