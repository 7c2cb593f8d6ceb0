"""The front door as a user types it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from front_door import call

import run_all


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, run_all; print([m for m in ('numpy', 'torch', 'timm', 'mmseg') if m in sys.modules])"
    root = Path(run_all.__file__).parent
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root).stdout.strip() == "[]"


def test_a_plan_does_not_wait_for_torch(tmp_path) -> None:
    code = (
        "import sys, run_all\n"
        f"sys.argv = ['run_all.py', 'plan', 'paper/transfer_table', '--json', '--data-root', {str(tmp_path)!r}]\n"
        "try: run_all.main()\n"
        "finally: print([m for m in ('torch', 'timm', 'mmseg', 'faiss') if m in sys.modules], file=sys.stderr)"
    )
    root = Path(run_all.__file__).parent
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    cells = json.loads(found.stdout)["cells"]
    assert {c["task"] for c in cells} >= {"classification", "segmentation", "retrieval", "detection"}
    assert all(c["state"] == "blocked" and c["missing"] for c in cells) and found.stderr.strip() == "[]"


def test_listings_as_json(monkeypatch, capsys) -> None:
    code, out, _ = call(monkeypatch, capsys, "ls", "backbones", "flexivit_?_i1k", "--json")
    assert code == 0 and [r["name"] for r in json.loads(out)] == [f"flexivit_{s}_i1k" for s in "bls"]
    code, out, _ = call(monkeypatch, capsys, "ls", "tasks", "--json")
    assert code == 0 and {"segmentation", "retrieval"} <= {r["name"] for r in json.loads(out)}


def test_broken_tasks_of_strangers_are_named_and_passed_over(monkeypatch, capsys, tmp_path) -> None:
    """One of them ended the list of all; one that took a name of ours took its place."""
    (tmp_path / "torn_plug_in.py").write_text("raise RuntimeError('torn\\nin two')\n")
    (tmp_path / "leaving_plug_in.py").write_text("raise SystemExit(3)\n")
    package = tmp_path / "stranger-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    entries = "torn = torn_plug_in:Task\nleaving = leaving_plug_in:Task\nno_task = os:getcwd\ngone = no_such:Task\n"
    (package / "entry_points.txt").write_text(
        f"[flexivit_transfer.tasks]\n{entries}classification = torn_plug_in:Task\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    code, out, err = call(monkeypatch, capsys, "ls", "tasks", "--json")
    found = {r["name"]: r["class"] for r in json.loads(out)}
    assert code == 0 and found["classification"] == "tasks.classification.adapter:Classification"
    assert not found.keys() & {"torn", "leaving", "no_task", "gone"} and len(err.splitlines()) == 4
    assert "warning: task 'torn' of stranger (torn_plug_in:Task) cannot be imported: RuntimeError: torn in two; " in err
    code, _, err = call(monkeypatch, capsys, "check", "task", "torn")
    assert code == 2 and err.startswith("error: task 'torn' of stranger") and err.count("\n") == 1
    code, _, err = call(
        monkeypatch, capsys, "plan", "demo", "--out", str(tmp_path / "out"), "--data-root", str(tmp_path)
    )
    assert code == 0 and not err


def test_what_matches_nothing_is_one_line(monkeypatch, capsys) -> None:
    code, _, err = call(monkeypatch, capsys, "ls", "backbones", "nothing*")
    assert code == 2 and err.count("\n") == 1 and "nothing*" in err


def test_score_detection_by_both_scorers(monkeypatch, capsys, tmp_path) -> None:
    box = {"image_id": 1, "category_id": 1, "bbox": [10.0, 10.0, 30.0, 30.0]}
    image = {"id": 1, "width": 100, "height": 100, "neg_category_ids": [], "not_exhaustive_category_ids": []}
    labels = {
        "images": [image],
        "annotations": [{**box, "id": 1, "area": 900.0, "segmentation": []}],
        "categories": [{"id": 1, "name": "mug", "frequency": "f"}],
    }
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    (tmp_path / "found.json").write_text(json.dumps([{**box, "score": 0.9}]))
    files = ["--predictions", str(tmp_path / "found.json"), "--annotations", str(tmp_path / "labels.json")]
    for more in ([], ["--official"]):
        code, out, _ = call(monkeypatch, capsys, "score", "detection", *files, *more)
        found = json.loads(out)
        assert code == 0 and list(found) == ["task", "protocol", "metrics", "counts"] and found["protocol"] == "lvis"
        assert found["metrics"]["AP"] == pytest.approx(1) and found["metrics"]["APr"] is None
    files[3] = str(tmp_path / "nowhere.json")
    code, _, err = call(monkeypatch, capsys, "score", "detection", *files)
    assert code == 2 and "nowhere.json" in err and err.count("\n") == 1
