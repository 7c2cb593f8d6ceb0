"""The runner's promises, on toy cells."""

import json
import os
import random
import subprocess
import sys
import time

import numpy as np
import pytest
from runner_tools import PLUGIN, run_toy, write_suite

import run_all
from benchmarks.engine.plan import Obstacles, plan
from benchmarks.engine.suite import cell_task, load_suite
from benchmarks.store import Store

ROOT = os.path.dirname(run_all.__file__)


def metrics(rows) -> dict:
    """What must not depend on when or how often a run was stopped."""
    assert len({r["row_key"] for r in rows if r["status"] == "ok"}) == sum(r["status"] == "ok" for r in rows)
    return {
        r["row_key"]: (r["metrics"], r["training"].get("losses"), r["eval_grid"]) for r in rows if r["status"] == "ok"
    }


def test_rows_name_themselves(tmp_path) -> None:
    summary, rows = run_toy(tmp_path)
    assert summary.status == 0 and [r["eval_grid"] for r in rows] == [2, 4, 6]
    keys = (
        "suite task protocol data_identity backbone weights_hash train_grid eval_grid patch image_size resize steps "
        "seed split metrics samples cost precision env device started finished seconds view_options recipe"
    )
    assert not [k for k in keys.split() if k not in rows[0]]
    row = rows[1]
    assert (row["task"], row["train_grid"], row["patch"], row["split"]) == ("toy", 4, 6, "test")
    assert row["training"]["steps"] == 12 and row["cost"]["macs"] > 0 and row["env"]["versions"]["torch"]
    assert (tmp_path / "out" / row["samples"]).is_file()
    assert not list((tmp_path / "out" / "checkpoints").glob("*.partial.pt"))


def test_the_same_command_finishes_what_is_missing_and_never_retrains(tmp_path) -> None:
    _, rows = run_toy(tmp_path)
    summary, again = run_toy(tmp_path)
    assert again == rows and len(summary.done) == 1 and not summary.ran
    said: list[str] = []
    _, more = run_toy(tmp_path, said=said, eval=[2, 4, 6, 8])
    assert len(more) == 4 and more[:3] == rows and more[3]["eval_grid"] == 8
    assert not any("step" in line for line in said)
    assert more[3]["train_key"] == rows[0]["train_key"]
    _, longer = run_toy(tmp_path, settings=["recipe.steps=13"])
    assert len(longer) == 7 and longer[-1]["train_key"] != rows[0]["train_key"]


def test_one_failing_cell_is_a_row_and_the_others_run(tmp_path) -> None:
    backbones = ["tiny_backbone:broken", "tiny_backbone:tiny"]
    summary, rows = run_toy(tmp_path, backbones=backbones)
    assert summary.status == 1 and len(summary.ran) == 1
    failed = [r for r in rows if r["status"] == "failed"]
    assert len(failed) == 1 and "these weights are torn" in failed[0]["error"] and "broken" in summary.lines()[1]
    assert "Traceback" in failed[0]["traceback"] and len(rows) == 4
    summary, rows = run_toy(tmp_path, backbones=backbones)
    assert len(summary.failed) == 1 and len(summary.done) == 1 and len(rows) == 5  # tried again, never taken for done


def test_candidates_compete_on_minival_and_only_the_winner_meets_the_test(tmp_path, monkeypatch) -> None:
    from flexivit_toy import Toy

    seen: list[str] = []
    plain = Toy.meter
    monkeypatch.setattr(Toy, "meter", lambda self, split: seen.append(split) or plain(self, split))
    tries = [{"lr": 0.0}, {"lr": 0.05}, {"lr": 1e30, "clip": None}]
    tasks = [{"task": "toy", "recipe": {"steps": 60, "candidates": tries}}]
    _, rows = run_toy(tmp_path, tasks=tasks)
    assert seen == ["minival", "minival", "test"]
    notes = rows[0]["training"]
    scores = [c["score"] for c in notes["candidates"]]
    assert scores[2] is None and notes["won"] == max((0, 1), key=lambda i: scores[i]) and len(rows) == 3
    assert len(list((tmp_path / "out" / "checkpoints").glob("*.pt"))) == 1


def test_zero_steps_train_nothing(tmp_path) -> None:
    _, rows = run_toy(tmp_path, tasks=[{"task": "toy", "recipe": {"steps": 0}}], train=[2, 4])
    assert len(rows) == 3 and rows[0]["train_grid"] is None and rows[0]["training"] == {"steps": 0}


def test_norm_resize_is_calibrated(tmp_path) -> None:
    _, rows = run_toy(tmp_path, eval=[{"grid": 2, "resize": "norm"}, {"grid": 2, "resize": "area"}, 2])
    assert [r["resize"] for r in rows] == ["norm", "area", "pi"] and len({r["row_key"] for r in rows}) == 3


def test_plan_says_what_is_done_and_what_is_to_do(tmp_path) -> None:
    run_toy(tmp_path)
    suite = load_suite(write_suite(tmp_path, train=[4, 6]), tmp_path)
    first, second = plan(suite, Store(tmp_path / "out"), tmp_path)
    assert (first.state, len(first.rows_done), second.state) == ("done", 3, "to do") and second.rows_done == []


def command(folder, suite: str) -> list[str]:
    return [
        sys.executable, "run_all.py", "run", suite, "--out", str(folder / "killed"), "--data-root", str(folder),
        "--device", "cpu", "--every", "0",
    ]  # fmt: skip


def kill_and_go_on(tmp_path, kills: int) -> None:
    changes = {"train": [4, "random:2,4"], "seeds": [0, 1]}
    _, whole = run_toy(tmp_path, "whole", **changes)
    suite, rng = write_suite(tmp_path, **changes), random.Random(0)
    threads = str(__import__("torch").get_num_threads())
    environ = {**os.environ, "PYTHONPATH": str(PLUGIN), "TOY_PAUSE": "0.05", "OMP_NUM_THREADS": threads}
    store, died = Store(tmp_path / "killed"), 0
    for _ in range(kills):
        process = subprocess.Popen(command(tmp_path, suite), cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True)
        assert "cells on" in process.stdout.readline()  # past the imports, which are most of its life
        time.sleep(rng.uniform(0.0, 2.5))
        process.kill()
        died += process.wait() == -9
        for row in store.rows():
            assert row["status"] == "ok" and metrics([row]).items() <= metrics(whole).items()
    assert died
    done = subprocess.run(command(tmp_path, suite), cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert metrics(store.rows()) == metrics(whole)
    assert not list((tmp_path / "killed").rglob("*.partial.pt"))


def test_kill_minus_nine_at_a_random_moment(tmp_path) -> None:
    kill_and_go_on(tmp_path, 1)


@pytest.mark.slow
def test_kill_minus_nine_at_twenty_random_moments(tmp_path) -> None:
    kill_and_go_on(tmp_path, 20)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [5, 64])
def test_two_processes_train_and_look_like_one(tmp_path, batch) -> None:
    """32 pictures in batches of 5: one process looks at 17, the other at 15. In batches of 64 one has none."""
    _, whole = run_toy(tmp_path, "whole")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environ = {**os.environ, "PYTHONPATH": str(PLUGIN), "OMP_NUM_THREADS": "1"}
    both = [*launch, *command(tmp_path, write_suite(tmp_path))[1:], "--batch", str(batch)]
    done = subprocess.run(both, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = Store(tmp_path / "killed").rows()
    assert [r["row_key"] for r in rows] == [r["row_key"] for r in whole]
    assert {r["images"] for r in rows} == {32}
    for a, b in zip(rows, whole, strict=True):
        assert a["metrics"] == b["metrics"]
        with np.load(tmp_path / "killed" / a["samples"]) as one, np.load(tmp_path / "whole" / b["samples"]) as other:
            assert one["ids"].tolist() == other["ids"].tolist() == list(range(32))


def test_a_loss_that_sees_one_share_is_told_by_plan_and_blocked_in_a_group(tmp_path, monkeypatch) -> None:
    from flexivit_toy import Toy

    coupled = [{"task": "toy", "recipe": {"steps": 12, "coupled": True}}]
    suite = load_suite(write_suite(tmp_path, tasks=coupled), tmp_path)
    (cell,), task = suite.cells, cell_task(suite.cells[0], tmp_path)
    (planned,) = plan(suite, Store(tmp_path / "out"), tmp_path)
    assert planned.state == "to do" and "a process group cannot train it" in planned.notes[-1]
    assert Obstacles().of(cell, task) == []
    assert [line.partition(":")[0] for line in Obstacles(processes=2).of(cell, task)] == ["toy"]
    monkeypatch.setattr(Toy, "gathers", True)
    assert Obstacles(processes=2).of(cell, task) == []


def test_two_runners_on_one_folder_do_each_cell_once(tmp_path) -> None:
    suite = write_suite(tmp_path, seeds=[0, 1, 2])
    environ = {**os.environ, "PYTHONPATH": str(PLUGIN), "TOY_PAUSE": "0.03", "OMP_NUM_THREADS": "1"}
    both = [*command(tmp_path, suite), "--jobs", "2"]
    done = subprocess.run(both, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = Store(tmp_path / "killed").rows()
    assert len(metrics(rows)) == len(rows) == 9


def test_plug_in_with_an_entry_point(tmp_path, monkeypatch, capsys) -> None:
    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["run_all.py", *arguments])
        with pytest.raises(SystemExit) as stop:
            run_all.main()
            raise SystemExit(0)
        return int(stop.value.code or 0), capsys.readouterr().out

    assert len((PLUGIN / "flexivit_toy.py").read_text().splitlines()) <= 60
    code, out = call("ls", "tasks", "--json")
    assert code == 0 and {"name": "toy", "class": "flexivit_toy:Toy"} in json.loads(out)
    code, out = call("check", "task", "toy", "--grids", "2,4")
    assert code == 0 and "FAIL" not in out and out.count("ok") >= 10, out
    suite = write_suite(tmp_path)
    common = (suite, "--out", str(tmp_path / "out"), "--data-root", str(tmp_path))
    code, out = call("run", *common, "--device", "cpu")
    assert code == 0 and "1 run, 0 done before" in out
    code, out = call("run", *common, "--device", "cpu")
    assert code == 0 and "0 run, 1 done before" in out
    code, out = call("plan", *common, "--json")
    assert code == 0 and [c["state"] for c in json.loads(out)["cells"]] == ["done"]
    code, out = call("report", str(tmp_path / "out"))
    assert code == 0 and "| tiny_backbone:tiny | 4 |" in out and (tmp_path / "out" / "report" / "rows.csv").is_file()


def test_an_adapter_that_breaks_the_contract_is_found_out(monkeypatch) -> None:
    from flexivit_toy import Toy

    from benchmarks.engine.conformance import check_task

    plain = Toy.predict
    monkeypatch.setattr(Toy, "predict", lambda self, m, b, g, p: {k: x[:1] for k, x in plain(self, m, b, g, p).items()})
    monkeypatch.setattr(Toy, "loss", lambda self, model, batch, grid: {"loss": model.head.bias.sum() * float("nan")})
    lines = check_task(Toy(), (2, 4))
    assert sum(line.startswith("FAIL loss") for line in lines) == 2 and any("entries for 4 samples" in i for i in lines)
