"""The steps for a machine with a GPU, tried on a CPU: small models, and nothing compiled."""

import importlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import official_forms
import pytest
import torch
from data_tools import sized

from benchmarks.prepare import prepare
from benchmarks.speed.gpu import detection, engine
from benchmarks.speed.gpu.throughput import queue

ROOT = Path(__file__).parents[2]


def test_who_wants_the_gpu_alone_waits_for_all_who_share_it(tmp_path) -> None:
    seen, shared, asked = [], threading.Event(), threading.Event()

    def share() -> None:
        with queue(tmp_path / "lock", alone=False):
            shared.set()
            asked.wait(20)
            seen.append("shared")

    def take() -> None:
        asked.set()
        with queue(tmp_path / "lock", alone=True):
            seen.append("alone")

    first, second = threading.Thread(target=share), threading.Thread(target=take)
    first.start()
    assert shared.wait(20)
    with queue(tmp_path / "lock", alone=False):  # another may share it meanwhile
        pass
    second.start()
    first.join(20)
    second.join(20)
    assert seen == ["shared", "alone"]


@pytest.mark.parametrize("step", ["__main__", "throughput", "detection", "sweep", "engine", "nano"])
def test_where_there_is_no_gpu_a_step_says_so_in_a_line(step, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device, told in (
        ("cuda", "this torch sees no GPU; --device cpu"),
        ("gpu", "no device 'gpu'; there are: cuda, cpu"),
    ):
        monkeypatch.setattr(sys, "argv", [step, "--out", str(tmp_path), "--device", device])
        with pytest.raises(SystemExit) as ended:
            importlib.import_module(f"benchmarks.speed.gpu.{step}").main()
        assert ended.value.code == 2 and told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_throughput_and_detection_are_measured_and_written(tmp_path) -> None:
    command = [sys.executable, "-m", "benchmarks.speed.gpu", "--device=cpu", "--small", f"--out={tmp_path}"]
    command += ["--steps=throughput,detection", "--seconds=500", "--limit=throughput=300", "--limit=detection=150"]
    told = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "TORCHDYNAMO_DISABLE": "1"}, capture_output=True, text=True, timeout=550
    )
    assert told.returncode == 0, told.stdout[-2000:] + told.stderr[-2000:]
    work = tmp_path / "work"
    rows = [json.loads(line) for line in (work / "throughput.jsonl").read_text().splitlines()]
    assert sorted((r["grid"], r["what"]) for r in rows) == [(g, w) for g in (5, 8) for w in ("forward", "training")]
    for row in rows:
        assert len(row["pictures_a_second"]) == 4 and all(rate > 0 for rate in row["share_of_peak"].values())
        low, high = row["spread"]["ours, bf16" if row["what"] == "forward" else "ours"]
        assert 0 < low <= high
    (found,) = [json.loads(line) for line in (work / "detection.jsonl").read_text().splitlines()]
    assert found["gap"] < 1e-4 and set(found["examples_a_second"]) == {"batched", "one pass", "a pass an example"}
    assert (work / "throughput.md").read_text().count("\n") == 2 + 16 and (tmp_path / "gpu.tar.gz").stat().st_size


def test_the_training_loop_is_timed_as_it_runs(tmp_path, monkeypatch) -> None:
    source = official_forms.zipped(official_forms.tiny_imagenet(tmp_path), tmp_path / "tiny-imagenet-200.zip")
    prepare("tiny-imagenet", [source], tmp_path / "data", {"train": 4, "val": 2}, lambda text: None)
    sized(monkeypatch, "tinyimagenet100", "classes", train=8, val=4)
    (row,) = engine.measure(tmp_path / "data", tmp_path, torch.device("cpu"), small=True)
    low, high = row["spread"]
    assert row == json.loads((tmp_path / "engine.jsonl").read_text()) and 0 < low <= row["pictures_a_second"] <= high
    assert (row["residual"], row["compiled"]) == ("float32", False) and row["share_of_peak"] > 0
    assert f"{row['pictures_a_second']:,.0f} ({low:,.0f}-{high:,.0f})" in engine.markdown([row])


def test_detection_is_timed_with_as_many_examples_as_fit(monkeypatch, capsys) -> None:
    def measure(*case) -> dict[str, int]:
        if case[4] > 16:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        if case[3] == 8:
            raise RuntimeError("shapes differ")
        return {"examples": case[4], "turns": case[5]}

    monkeypatch.setattr(detection, "measure", measure)
    found = detection._within_memory(("a", "b", 720, 30, 64, 5), torch.device("cpu"))
    assert found == {"examples": 16, "turns": 5}
    told = capsys.readouterr().out.splitlines()
    assert told == [f"out of memory at patch 30: {n} examples instead" for n in (32, 16)]
    with pytest.raises(RuntimeError, match="shapes differ"):
        detection._within_memory(("a", "b", 720, 8, 16, 5), torch.device("cpu"))
