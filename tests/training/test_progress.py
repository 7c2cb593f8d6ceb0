"""What a training says of its rate and the time left."""

import itertools
from pathlib import Path

import pytest
from accelerate import Accelerator

from benchmarks.engine.running.lines import Lines
from benchmarks.engine.running.options import RunOptions
from benchmarks.engine.training import trainer
from benchmarks.store import Store


def test_time_left_forgets_a_slow_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that embeds all pictures first takes 1,000 seconds, every other one ten: 98 more take 980."""
    lines: list[str] = []
    own = trainer.Trainer(Store(tmp_path), Accelerator(cpu=True), RunOptions(device="cpu"), Lines(lines.append))
    own._batch = 64
    clock = itertools.chain([0.0], (1000.0 + 10 * n for n in itertools.count()))
    monkeypatch.setattr(trainer.time, "perf_counter", lambda: next(clock))
    show = own._progress()
    for step in (1, 2):
        show(step, 100, 64 * step / (990 + 10 * step), {"loss": 1.0})
    assert "0 img/s" in lines[0] and "step 2/100" in lines[1]
    assert "6 img/s 16.3 min left" in lines[1]
