"""Own pictures that are read at another size than a backbone was made for are told, once, and change no key."""

import pytest
import yaml
from data_tools import small_pictures
from typer.testing import CliRunner

import run_all
from benchmarks.engine.suite import load_suite, size_notes

TASK = {"task": "classification", "options": {"data": "small/set/"}, "recipe": {"steps": 1}}


def suite(folder, backbones, *tasks):
    path = folder / "mine.yaml"
    told = {
        "name": "mine",
        "backbones": list(backbones),
        "train": [8, 15],
        "eval": [8],
        "seeds": [0, 1],
        "tasks": tasks,
    }
    path.write_text(yaml.safe_dump(told))
    return path


def test_one_line_for_the_backbones_of_another_size(tmp_path) -> None:
    small_pictures(tmp_path)
    path = suite(tmp_path, ["flexivit_nano", "vit_nano_g8", "flexivit_b_i1k"], TASK)
    assert size_notes(load_suite(str(path), tmp_path), tmp_path) == [
        "classification small/set/: read at 240 px, but flexivit_nano, vit_nano_g8 were made for 120: options: "
        "{image_size: 120}, or image_size: 240 to keep it so"
    ]


@pytest.mark.parametrize("options", [
    {"data": "small/set/", "image_size": 120}, {"data": "small/set/", "image_size": 240}, {"data": "imagewoof9"},
])  # fmt: skip
def test_a_size_that_was_named_and_known_sets_are_nobodys_mistake(tmp_path, options) -> None:
    small_pictures(tmp_path)
    path = suite(tmp_path, ["flexivit_nano", "nowhere.npz"], {**TASK, "options": options})
    assert size_notes(load_suite(str(path), tmp_path), tmp_path) == []


def test_plan_and_run_say_it(tmp_path, monkeypatch) -> None:
    small_pictures(tmp_path)
    path = suite(tmp_path, ["flexivit_nano"], TASK)
    monkeypatch.setattr("benchmarks.executors.local.run", lambda *work: 0)
    for verb in ("plan", "run"):
        told = CliRunner().invoke(
            run_all.app, [verb, str(path), "--data-root", str(tmp_path), "--out", f"{tmp_path}/out"]
        )
        assert (
            told.stderr.count("note: classification small/set/: read at 240 px, but flexivit_nano was made for 120")
            == 1
        )
        assert told.exit_code == 0 and "note:" not in told.stdout
