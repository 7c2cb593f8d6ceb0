"""The verbs of running, as a user types them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from front_door import call
from PIL import Image
from runner_tools import run_toy, write_suite

import run_all
from benchmarks.engine.running.finished import finished
from benchmarks.engine.running.lines import Lines
from benchmarks.engine.running.options import RunOptions
from benchmarks.engine.suite import load_suite
from benchmarks.store import Store


@pytest.mark.parametrize(
    "verb",
    [["run"], ["plan"], ["ls"], ["report"], ["compare"], ["bench"], ["check", "data"], ["check", "task"]],
    ids="-".join,
)
def test_each_verb_explains_itself_by_an_example(monkeypatch, capsys, verb: list[str]) -> None:
    code, out, _ = call(monkeypatch, capsys, *verb, "--help")
    assert code == 0 and f"run_all.py {' '.join(verb)}" in " ".join(out.split())


def test_suites_are_listed(monkeypatch, capsys) -> None:
    code, out, _ = call(monkeypatch, capsys, "ls", "suites", "--json")
    found = {row["name"]: row for row in json.loads(out)}
    assert code == 0 and {"demo", "mini/classification", "paper/transfer_table", "paper/fast_transfer"} <= set(found)
    assert all(row["description"] for row in found.values())


def test_plan_of_a_paper_suite_names_what_is_missing_and_where_it_is_to_be_had(monkeypatch, capsys, tmp_path) -> None:
    arguments = ("plan", "paper/fast_transfer", "--data-root", str(tmp_path), "--out", str(tmp_path / "out"), "--json")
    code, out, _ = call(monkeypatch, capsys, *arguments)
    cells = json.loads(out)["cells"]
    assert code == 0 and len(cells) == 2 * 3 * 3 * 3 and {c["state"] for c in cells} == {"blocked"}
    assert all(any("get it from http" in m for m in c["missing"]) for c in cells)
    weights = "https://storage.googleapis.com/big_vision/"
    assert all(any(weights in text for text in (*c["missing"], *c["downloads"])) for c in cells)
    assert all(c["macs"] > 1e12 and c["hours"] > 0 for c in cells)
    assert not (tmp_path / "out").exists()


def test_blocked_cells_are_named_and_the_exit_status_tells(monkeypatch, capsys, tmp_path) -> None:
    arguments = ("run", "mini/classification", "--data-root", str(tmp_path), "--out", str(tmp_path / "out"))
    code, out, _ = call(monkeypatch, capsys, *arguments, "--device", "cpu", "--only", "train=8,data=cars98")
    assert code == 1 and "12 blocked" in out and "cars98_train_*.parquet" in out
    code, out, _ = call(monkeypatch, capsys, "check", "data", "mini/classification", "--data-root", str(tmp_path))
    assert code == 1 and "4 missing" in out


def test_failures_make_the_exit_status_and_the_report(monkeypatch, capsys, tmp_path) -> None:
    suite = write_suite(tmp_path, backbones=["tiny_backbone:broken", "tiny_backbone:tiny"])
    arguments = ("run", suite, "--data-root", str(tmp_path), "--out", str(tmp_path / "out"), "--device", "cpu")
    code, out, _ = call(monkeypatch, capsys, *arguments)
    assert code == 1 and "1 run, 0 done before, 1 failed" in out and "these weights are torn" in out
    code, out, _ = call(monkeypatch, capsys, "report", str(tmp_path / "out"))
    assert code == 0 and "### failed" in out and "tiny_backbone:tiny" in out


def test_mistakes_are_one_line(monkeypatch, capsys, tmp_path) -> None:
    for arguments, words in (
        (("run", "dmo"), "nearest: demo"),
        (("run", "demo", "--set", "recipe.stepz=1"), "steps"),
        (("run", "demo", "--set", "recipe.steps=many"), "steps"),
        (("run", "demo", "--device", "tpu"), "cpu, cuda"),
        (("run", "demo", "--precision", "int4"), "bf16"),
        (("run", "demo", "--only", "backbone=resnet"), "no cell is left"),
        (("report", str(tmp_path)), "no rows"),
        (("check", "task", "classificatoin"), "classification"),
    ):
        more = ("--out", str(tmp_path / "out"), "--data-root", str(tmp_path)) if arguments[0] == "run" else ()
        code, out, err = call(monkeypatch, capsys, *arguments, *more)
        text = err if err else out
        assert code in (1, 2) and words in text, (arguments, out, err)
        assert err.count("\n") <= 1


def test_holes_stay_holes_in_tables(tmp_path) -> None:
    from benchmarks.report.build import read_report
    from benchmarks.report.tables import as_csv

    _, rows = run_toy(tmp_path, seeds=[0, 1])
    rows = [r for r in rows if not (r["seed"] == 0 and r["eval_grid"] == 6)]
    rows[0] = rows[0].changed(metrics={"top1": None})
    holes = Store(tmp_path / "holes")
    holes.append(rows)
    lines = [line for line in read_report([holes]).markdown().splitlines() if line.startswith("| tiny")]
    assert len(lines) == 1 and lines[0].split("|")[3].strip() == "-" and "\u00b1" in lines[0].split("|")[4]
    assert "\u00b1" not in lines[0].split("|")[5] and len(as_csv(rows).splitlines()) == 1 + len(rows)


def test_a_stopped_run_goes_on(tmp_path) -> None:
    import signal
    import time

    suite = write_suite(tmp_path)
    here = Path(run_all.__file__).parent
    environ = {**os.environ, "PYTHONPATH": str(here / "tests" / "plugin"), "TOY_PAUSE": "0.5", "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "run_all.py", "run", suite, "--out", str(tmp_path / "out"), "--data-root", str(tmp_path)]
    process = subprocess.Popen([*line, "--device", "cpu"], cwd=here, env=environ, stdout=subprocess.PIPE, text=True)
    while "rows to do" not in process.stdout.readline():
        pass
    time.sleep(1.5)  # some of twelve steps of half a second
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert len(list((tmp_path / "out" / "checkpoints").glob("*.partial.pt"))) == 1
    _, rows = run_toy(tmp_path)
    assert len(rows) == 3 and len(rows[0]["training"]["resumed_at"]) == 1


def test_a_run_that_is_done_says_so_without_torch(monkeypatch, capsys, tmp_path) -> None:
    for place in (tmp_path / "own" / split / label for split in ("train", "test") for label in ("red", "blue")):
        place.mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (24, 24), place.name).save(place / f"{i}.png")
    options = {"data": "own/", "protocol": "knn", "image_size": 24, "neighbours": 1}
    tasks = [{"task": "classification", "options": options}]
    suite = write_suite(tmp_path, name="again", backbones=["flexivit_nano"], train=[], eval=[4], tasks=tasks)
    arguments = ["run", suite, "--data-root", str(tmp_path), "--out", str(tmp_path / "out"), "--device", "cpu"]
    asked = (load_suite(suite, tmp_path), Store(tmp_path / "out"), tmp_path)
    silent = Lines([].append)
    assert finished(*asked, RunOptions(device="cpu"), silent) is None  # nothing is done yet
    code, first, _ = call(monkeypatch, capsys, *arguments)
    assert code == 0 and "1 run, 0 done before" in first
    code = (
        f"import sys, run_all; sys.argv = {['run_all.py', *arguments]!r}\n"
        "try: run_all.main()\n"
        "finally: print([m for m in ('torch', 'timm', 'accelerate') if m in sys.modules], file=sys.stderr)"
    )
    root = Path(run_all.__file__).parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    said = done.stdout.splitlines()
    assert said[0] == first.splitlines()[0] == "again: 1 cells on cpu, precision float32" and said[1].endswith(": done")
    assert said[2].startswith("0 run, 1 done before, 0 failed, 0 blocked in ")
    assert done.stderr.splitlines()[-1] == "[]"
    # other rows than those that are there are for a runner, which says what it meets
    for other in ({"precision": "bf16"}, {"precision": "fp16"}, {"device": "cuda"}, {"device": "gpu"}, {"limit": 2}):
        assert finished(*asked, RunOptions(**{"device": "cpu", **other}), silent) is None
    assert finished(*asked, RunOptions(device="cpu"), silent).done
    monkeypatch.setenv("RANK", "0")
    assert finished(*asked, RunOptions(device="cpu"), silent) is None
    monkeypatch.delenv("RANK")
    (tmp_path / "own" / "test" / "red" / "0.png").unlink()
    assert finished(*asked, RunOptions(device="cpu"), silent) is None
