"""What can happen to a run: each fault is told, recorded or survived, and the other cells are unharmed."""

import os
import shutil
import signal
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import torch
from runner_tools import run_toy, write_suite

import run_all
from benchmarks.engine.runner import Runner, RunOptions
from benchmarks.engine.suite import load_suite
from benchmarks.store import Store, StoreError
from benchmarks.store import files as store_module
from benchmarks.store.failures import one_line

PLAIN = {"task": "toy", "recipe": {"steps": 6, "drop_path": 0.0}}


def ok(rows: list[dict]) -> list[dict]:
    return [r for r in rows if r["status"] == "ok"]


class Disk:
    """A disk that is full from the `first` write to the `last` (from 0); it takes half of what it is given."""

    def __init__(self, first: int, last: int):
        self.first, self.last, self.count, self.write = first, last, -1, os.write

    def __call__(self, descriptor: int, content: bytes) -> int:
        self.count += 1
        if self.first <= self.count <= self.last:
            self.write(descriptor, content[: len(content) // 2])
            raise OSError(28, "No space left on device")
        return self.write(descriptor, content)


def test_a_disk_that_is_full_from_the_start_starts_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(store_module.os, "write", Disk(0, 9))
    said: list[str] = []
    with pytest.raises(StoreError, match="results cannot be written to .*: No space left on device; free some space"):
        run_toy(tmp_path, said=said)
    assert said == [] and not (tmp_path / "out" / "checkpoints").exists()


def test_a_disk_that_fills_up_costs_one_cell_and_no_row_is_torn(tmp_path, monkeypatch) -> None:
    # writes: probes of the run and of the first cell, its rows, its failure; then there is room again
    disk = Disk(2, 3)
    monkeypatch.setattr(store_module.os, "write", disk)
    summary, rows = run_toy(tmp_path, seeds=[0, 1])
    assert disk.count > 4 and summary.status == 1 and len(summary.failed) == len(summary.ran) == 1
    assert "No space left on device" in summary.failed[0][1] and "no row of it could be written" in summary.failed[0][1]
    assert [r["seed"] for r in rows] == [1, 1, 1] and len(ok(rows)) == 3
    said: list[str] = []
    summary, rows = run_toy(tmp_path, said=said, seeds=[0, 1])
    assert summary.status == 0 and len(rows) == 6 and not any("step" in s for s in said)  # its weights were kept


def test_a_disk_that_stays_full_trains_nothing_more(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(store_module.os, "write", Disk(2, 1000))
    summary, rows = run_toy(tmp_path, seeds=[0, 1, 2])
    assert rows == [] and len(summary.failed) == 3
    assert all("results cannot be written" in error for _, error in summary.failed[1:])
    assert len(list((tmp_path / "out" / "checkpoints").glob("*.pt"))) == 1


def test_a_checkpoint_that_finds_no_room_fails_its_cell_alone(tmp_path, monkeypatch) -> None:
    save, free, calls = torch.save, shutil.disk_usage, []

    def full(state: dict, path: Path) -> None:
        calls.append(path)
        save(state, path)
        if len(calls) == 3:
            monkeypatch.setattr(shutil, "disk_usage", lambda folder: free(folder)._replace(free=0))
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")

    monkeypatch.setattr(torch, "save", full)
    summary, rows = run_toy(tmp_path, seeds=[0, 1])
    assert summary.status == 1 and [r["status"] for r in rows] == ["failed", "ok", "ok", "ok"]
    assert ".partial.pt cannot be written: No space left on device; free some space" in rows[0]["error"]
    assert not calls[2].exists()  # the half-written one is gone, the one before it is there
    summary, rows = run_toy(tmp_path, seeds=[0, 1])
    assert summary.status == 0 and rows[-1]["training"]["resumed_at"] == [2]


def test_read_only_output_is_one_line(tmp_path, monkeypatch, capsys) -> None:
    places = ["--data-root", str(tmp_path), "--out", "/proc/results"]
    monkeypatch.setattr(sys, "argv", ["run_all.py", "run", write_suite(tmp_path), "--device", "cpu", *places])
    with pytest.raises(SystemExit) as stop:
        run_all.main()
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.startswith("error: results cannot be written to /proc/results: ")
    assert error.count("\n") == 1 and "choose another --out" in error


def test_a_loss_that_is_no_number_is_a_recorded_failure(tmp_path) -> None:
    wild = {"task": "toy", "recipe": {"steps": 60, "lr": 1e30, "clip": None}}
    summary, rows = run_toy(tmp_path, tasks=[wild, PLAIN])
    failed = [r for r in rows if r["status"] == "failed"]
    assert len(failed) == 1 and len(ok(rows)) == 3 and summary.status == 1
    assert failed[0]["error"].startswith("Diverged: loss is ") and "rate (1e+30)" in failed[0]["error"]
    assert failed[0]["metrics"] == {} and "Traceback" in failed[0]["traceback"]


def little_memory(monkeypatch, method: str, images: int) -> None:
    from flexivit_toy import Toy

    plain = getattr(Toy, method)

    def limited(self, model, batch, *arguments):
        if len(batch) > images:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return plain(self, model, batch, *arguments)

    monkeypatch.setattr(Toy, method, limited)


def test_training_out_of_memory_halves_the_micro_batches_and_says_so(tmp_path, monkeypatch, capsys) -> None:
    _, expected = run_toy(tmp_path, "roomy", tasks=[PLAIN])
    little_memory(monkeypatch, "loss", 3)
    summary, rows = run_toy(tmp_path, tasks=[PLAIN])
    assert summary.status == 0
    notes = [
        "out of memory at grid 4x4: micro-batches of 8 images halved to 4",
        "out of memory at grid 4x4: micro-batches of 4 images halved to 2",
    ]
    assert rows[0]["training"]["notes"] == rows[0]["notes"] == notes
    assert all(n in capsys.readouterr().out for n in notes[:1])
    found, wanted = (torch.tensor(r[0]["training"]["losses"]) for r in (rows, expected))
    assert (found - wanted).abs().max() < 2e-6  # the gradient is that of the whole batch


def test_losses_that_may_not_be_cut_fail_out_of_memory(tmp_path, monkeypatch) -> None:
    little_memory(monkeypatch, "loss", 3)
    coupled = {"task": "toy", "recipe": {**PLAIN["recipe"], "coupled": True}}
    summary, rows = run_toy(tmp_path, tasks=[coupled])
    assert summary.status == 1 and rows[0]["error"] == "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB"


def test_one_image_that_does_not_fit_is_a_recorded_failure(tmp_path, monkeypatch) -> None:
    little_memory(monkeypatch, "loss", 0)
    summary, rows = run_toy(tmp_path, tasks=[PLAIN, {"task": "toy", "recipe": {"steps": 0}}])
    assert [r["status"] for r in rows] == ["failed", "ok", "ok", "ok"] and "out of memory" in rows[0]["error"]


def test_looking_out_of_memory_halves_the_chunks_and_says_so(tmp_path, monkeypatch) -> None:
    _, expected = run_toy(tmp_path, "roomy", tasks=[PLAIN])
    little_memory(monkeypatch, "predict", 20)
    summary, rows = run_toy(tmp_path, tasks=[PLAIN])
    assert summary.status == 0 and [r["metrics"] for r in rows] == [r["metrics"] for r in expected]
    assert rows[0]["notes"] == ["out of memory at grid 2x2: 32 images a pass halved to 16"]


def test_a_killed_worker_fails_its_cell_alone(tmp_path, monkeypatch) -> None:
    from flexivit_toy import Quarters

    plain, mark = Quarters.__getitem__, tmp_path / "killed"

    def deadly(self, i):
        if self.first == 2000 and torch.utils.data.get_worker_info() and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(self, i)

    monkeypatch.setattr(Quarters, "__getitem__", deadly)
    suite = load_suite(write_suite(tmp_path, seeds=[0, 1], eval=[4]), tmp_path)
    options = RunOptions(device="cpu", workers=1)
    summary = Runner(suite, Store(tmp_path / "out"), tmp_path, options, lambda text: None).run()
    rows = Store(tmp_path / "out").rows()
    assert mark.exists() and [r["status"] for r in rows] == ["failed", "ok"] and summary.status == 1
    assert "a process that decodes pictures died" in rows[0]["error"] and "try fewer --workers" in rows[0]["error"]


def test_a_clock_that_goes_back_harms_nothing(tmp_path, monkeypatch) -> None:
    from benchmarks.engine import runner

    class Backwards(datetime):
        passed = 0

        @classmethod
        def now(cls, zone=None):
            cls.passed += 1
            return datetime(2026, 1, 1, tzinfo=zone) - timedelta(hours=cls.passed)

    monkeypatch.setattr(runner, "datetime", Backwards)
    summary, rows = run_toy(tmp_path, seeds=[0, 1])
    assert summary.status == 0 and Backwards.passed > 2
    for row in rows:
        assert row["seconds"] > 0 and 0 <= _span(row) <= row["seconds"] + 1
        assert row["cost"]["images_per_second"] > 0 and row["training"]["seconds"] > 0
        assert row["training"]["peak_bytes"] > 1 << 20
    assert rows[0]["started"] > rows[-1]["started"]  # the clock did go back
    summary, again = run_toy(tmp_path, seeds=[0, 1])
    assert len(summary.done) == 2 and again == rows


def _span(row: dict) -> float:
    return (datetime.fromisoformat(row["finished"]) - datetime.fromisoformat(row["started"])).total_seconds()


def test_names_from_suites_and_data_stay_in_the_output_folder(tmp_path) -> None:
    from fault_tools import cell, class_folders, run_cells

    deep = tmp_path / "a" / "b" / "root"
    class_folders(tmp_path / "a" / "b" / "outside")
    before = set(tmp_path.rglob("*"))
    summary, rows = run_cells(deep_made(deep), cell("../outside/../outside"), out=deep / "out")
    assert summary.status == 0 and len(rows) == 2
    new = {p for p in tmp_path.rglob("*") if p not in before and p not in (deep, deep / "faults.yaml")}
    assert new and all((deep / "out") in (p, *p.parents) for p in new)


def deep_made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_errors_are_one_line() -> None:
    text = "Caught TaskError in DataLoader worker process 0.\nTraceback\ntasks.task.TaskError: a.jpg: b"
    wrapped = RuntimeError(text)
    assert one_line(wrapped) == "TaskError: a.jpg: b"
    assert one_line(ValueError("first\nsecond")) == "ValueError: first"
    assert one_line(KeyError()) == "KeyError: no message"
