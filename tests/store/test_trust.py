"""A folder of results is data: reading it runs nothing that it names, and what is damaged is named."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import runner_tools  # noqa: F401  (makes the plug-in importable)
import torch
from front_door import call
from PIL import Image

from backbones import build_backbone
from backbones.trust import trusting
from benchmarks.engine.reopen import reopen
from benchmarks.store import Row, Store
from benchmarks.store.gallery import keep_pictures, kept_pictures
from tasks import build_task

EVIL = "raise_on_import"


@pytest.fixture
def evil(tmp_path, monkeypatch) -> Path:
    """A module that leaves a mark when it is imported; it has a task and a backbone."""
    mark = tmp_path / "imported"
    text = f"open({str(mark)!r}, 'w').close()\nfrom tasks import Task\nTaskOfTheirs = Task\ndef make(): pass\n"
    (tmp_path / f"{EVIL}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, EVIL, raising=False)
    yield mark
    sys.modules.pop(EVIL, None)


def row(**more: object) -> dict:
    return {
        "suite": "told", "task": "classification", "protocol": "finetune-v1", "options": {"data": "scenes"},
        "backbone": "flexivit_nano", "train_grid": 8, "eval_grid": 8, "seed": 0, "split": "test", "metric": "top1",
        "metrics": {"top1": 0.5}, "row_key": "a", "recipe": {"steps": 0}, "label": "one", **more,
    }  # fmt: skip


def sampled(store: Store, **more: object) -> dict:
    right = np.arange(40) % 2
    ranked = np.where(right, 0, 1)[:, None].astype(np.int32)
    key = str(more.get("row_key", "a"))
    samples = {"ids": np.arange(40), "label": np.zeros(40, np.int64), "ranked": ranked}
    return row(samples=store.save_samples(key, samples), **more)


@pytest.mark.parametrize("verb", ["report", "compare"])
def test_a_report_runs_no_task_that_a_row_names(tmp_path, evil, monkeypatch, capsys, verb) -> None:
    folder = tmp_path / "run"
    store = Store(folder)
    store.append([
        sampled(store, task=f"{EVIL}:TaskOfTheirs", row_key=name, backbone=name) for name in ("a", "b")
    ])  # fmt: skip
    words = (verb, str(folder)) if verb == "report" else (verb, "a", "b", "--run", str(folder))
    code, out, _ = call(monkeypatch, capsys, *words)
    assert code == 0 and not evil.exists() and "50.0" in out or verb == "compare"
    if verb == "report":
        assert "| a | 8 | 50.0" in out  # shown, without an interval
    call(monkeypatch, capsys, *words, "--trust")
    assert evil.exists()


@pytest.mark.parametrize("change", [
    {"task": f"{EVIL}:TaskOfTheirs"}, {"backbone": f"{EVIL}:make"},
    {"task": "upstream", "options": {"preset": "i1k_deit3_distill", "data": "scenes", "teacher": f"{EVIL}:make"}},
])  # fmt: skip
def test_a_row_is_reopened_without_running_what_it_names(tmp_path, evil, change) -> None:
    found = Row.from_json(row(**change))
    with pytest.raises(ValueError, match=r"is code to be imported and run; pass --trust if you trust its origin"):
        reopen(Store(tmp_path / "run"), found, tmp_path)
    assert not evil.exists()
    with pytest.raises(Exception):  # noqa: B017  (whatever it is: their code was run)
        reopen(Store(tmp_path / "run", trust=True), found, tmp_path)
    assert evil.exists()


def test_only_tasks_and_modules_are_called() -> None:
    for name in ("os:system", "os:getcwd", "json:loads", "pathlib:Path", "tasks.contract:TaskCard"):
        with pytest.raises(ValueError, match="no class of tasks.Task"):
            build_task(name)
    for name in ("os:system", "pathlib:Path"):
        with pytest.raises(ValueError, match="torch.nn.Module"):
            build_backbone(name)


def test_trust_ends_with_its_block_and_never_grows_within(evil) -> None:
    with trusting(False), trusting(True), pytest.raises(ValueError, match="--trust"):
        build_task(f"{EVIL}:TaskOfTheirs")
    with pytest.raises(RuntimeError), trusting(False):
        raise RuntimeError
    build_task("classification")
    with trusting(False):
        build_task("classification")  # what is installed is the user's own
        assert build_backbone("flexivit_nano", pretrained=False) is not None


def damaged(folder: Path) -> Store:
    """A run with every damage that was met: rows of others, torn samples, a torn index and a torn picture."""
    store = Store(folder)
    store.append([
        sampled(store, row_key=f"{name}{grid}", backbone=name, eval_grid=grid, recipe={"steps": 5, "candidates": c})
        for name in ("flexivit_nano", "vit_nano_g8") for grid in (4, 8)
        for c in [[{"lr": 0.1}] if grid == 4 else [{"lr": 0.1}, {"lr": 0.2}]]
    ])  # fmt: skip
    with open(store.path, "a", encoding="utf-8") as file:
        for line in ('{"hello": 1}', '{"task": "x", "metrics": {"a": 1}}', json.dumps(row(metrics=[1])), "\x00\x01"):
            file.write(line + "\n")
    torn = folder / "samples" / "vit_nano_g88.npz"
    torn.write_bytes(torn.read_bytes()[:100])
    keep_pictures(store, "one", [("first", Image.new("RGB", (8, 8))), ("second", Image.new("RGB", (8, 8)))])
    picture = sorted((folder / "pictures").glob("*.png"))[0]
    picture.write_bytes(picture.read_bytes()[:40])
    return store


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_report_of_a_damaged_folder_is_made_and_names_each_damage(tmp_path, monkeypatch, capsys) -> None:
    folder = damaged(tmp_path / "run").folder
    code, out, _ = call(monkeypatch, capsys, "report", str(folder))
    page = (folder / "report" / "page.html").read_text(encoding="utf-8")
    assert code == 0 and "| flexivit_nano | 8 | 50.0" in out and "<figure>" in page
    named = ["rows.jsonl:5: not a row", "rows.jsonl:6: not a row", "rows.jsonl:7: not a row", "rows.jsonl:8: not a row"]
    for fault in (*named, "vit_nano_g88.npz cannot be read", ".png cannot be read and is left out"):
        assert page.count(fault) == 1, fault


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"a.png": 1', "\xff"])
def test_a_torn_index_of_pictures_costs_the_pictures_alone(tmp_path, text) -> None:
    store = Store(tmp_path)
    keep_pictures(store, "one", [("first", Image.new("RGB", (8, 8)))])
    (tmp_path / "pictures" / "index.json").write_bytes(text.encode("latin-1"))
    assert kept_pictures(store) == [] and "index.json cannot be read, the pictures are left out" in store.faults[0]
    keep_pictures(store, "two", [("second", Image.new("RGB", (8, 8)))])
    assert [caption for _, caption in kept_pictures(Store(tmp_path))] == ["two: second"]


@pytest.mark.parametrize("content", ["torn", "foreign", "empty", "text", "keys"])
def test_a_checkpoint_that_cannot_be_used_is_one_line(tmp_path, content) -> None:
    store, path = Store(tmp_path), tmp_path / "checkpoints" / "k.pt"
    path.parent.mkdir()
    torch.save({"model": {"a": torch.zeros(3)}} if content == "foreign" else {"weights": 3}, path)
    if content in ("torn", "empty", "text"):
        whole = path.read_bytes()
        path.write_bytes({"torn": whole[: len(whole) // 2], "empty": b"", "text": b"hello"}[content])
    plain = {"task": "toy", "backbone": "tiny_backbone:tiny", "options": {}}
    found = Row.from_json(row(**plain, recipe={"steps": 3}, train_key="k"))
    store.trust = True
    with pytest.raises(
        ValueError, match=r"k.pt (is torn or no checkpoint of ours|does not hold the weights of)"
    ) as told:
        reopen(store, found, tmp_path)
    assert "\n" not in str(told.value)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_markup_in_names_is_text_in_every_file(tmp_path, monkeypatch, capsys) -> None:
    evil = "<script>alert(1)</script>[x](javascript:y)![z](http://w)`a|b\nc"
    store = Store(tmp_path / "run")
    env = {"command": f"run_all.py {evil}", "revision": evil, "system": evil}
    common = {"suite": evil, "options": {"data": evil + "d" * 300}, "env": env, "metric": "top1", "label": evil}
    store.append([
        *(sampled(store, row_key=f"k{g}", backbone=evil, eval_grid=g, protocol=evil, **common) for g in (4, 8)),
        {"task": "t", "backbone": "b", "status": "failed", "error": evil, "label": f"{evil} failed"},
    ])  # fmt: skip
    code, _, err = call(monkeypatch, capsys, "report", str(store.folder), "--to", str(tmp_path / "kept"))
    assert code == 0, err
    for path in (*(store.folder / "report").iterdir(), *(tmp_path / "kept").iterdir()):
        assert len(path.name.encode()) < 255
        if path.suffix in (".md", ".html"):
            text = re.sub("`[^`\n]*`", "", path.read_text(encoding="utf-8"))  # code is shown as it is
            assert "<script>alert" not in text, path  # the page has scripts of its own
            assert path.suffix == ".html" or ("[x](" not in text and "![z](" not in text), path
