"""The trained model of a row as a file, and the row's number scored with that file."""

import json

import pytest
import timm
import torch
import yaml
from typer.testing import CliRunner

import run_all
from backbones.deploy.opened import open_exported
from benchmarks.engine.reopen import find_row, reopen
from benchmarks.store import Store
from tasks.data.scenes import scenes_folder


def typed(*words: str):
    return CliRunner().invoke(run_all.app, list(words))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Drawn scenes, and a run of some steps of each kind of model that is exported in its own way."""
    folder = tmp_path_factory.mktemp("export")
    scenes_folder(folder)
    short = {"steps": 3, "batch": 8, "warmup": 0, "candidates": []}
    suite = {
        "name": "exported", "backbones": ["flexivit_nano"], "train": [4], "eval": [6],
        "tasks": [
            {"task": "classification", "options": {"data": "scenes"}, "recipe": short},
            {"task": "classification", "options": {"data": "scenes", "protocol": "linear"}, "recipe": short},
            {"task": "segmentation", "options": {"data": "scenes", "head": "linear"}, "recipe": short},
            {"task": "retrieval", "options": {"data": "scenes", "text": "tiny"}, "recipe": short},
        ],
    }  # fmt: skip
    (folder / "exported.yaml").write_text(yaml.safe_dump(suite))
    done = typed("run", str(folder / "exported.yaml"), "--data-root", str(folder), "--out", str(folder / "out"))
    assert done.exit_code == 0, done.output
    return folder


def export(place, name: str, *words: str, check: bool = True):
    out = place / name
    base = ("use", "export-model", str(place / "out"), str(out), "--data-root", str(place), "--grid", "6")
    return typed(*base, *words, *(("--check",) if check else ())), out


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fine.onnx", ("--where", "protocol=finetune*")),
        ("fine", ("--where", "protocol=finetune*", "--format", "timm")),
        ("probe.pt2", ("--where", "protocol=linear*", "--format", "torch")),
        pytest.param("masks.onnx", ("--task", "segmentation"), marks=pytest.mark.slow),
        ("words.pt2", ("--task", "retrieval", "--format", "torch")),
    ],
)
def test_the_row_holds_for_the_file(place, name: str, words: tuple[str, ...]) -> None:
    done, out = export(place, name, *words)
    assert done.exit_code == 0, done.output
    assert "it holds for the file" in done.output and str(out) in done.output
    kept = open_exported(out).metadata
    assert kept["grid"] == [6, 6] and kept["image_size"] == [120, 120] and kept["backbone"] == "flexivit_nano"
    assert len(kept["classes"]) == (6 if name in ("fine.onnx", "fine", "probe.pt2") else len(kept["classes"]))


@torch.no_grad()
def test_a_timm_folder_needs_timm_alone(place) -> None:
    done, out = export(place, "alone", "--where", "protocol=finetune*", "--format", "timm", check=False)
    assert done.exit_code == 0, done.output
    row = find_row(Store(place / "out"), {"protocol": "finetune*", "eval_grid": 6})
    _, model = reopen(Store(place / "out"), row, place)
    plain = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    images = torch.randn(2, 3, 120, 120)
    torch.testing.assert_close(plain(images), model(images, (6, 6)), atol=1e-5, rtol=1e-5)
    config = json.loads((out / "config.json").read_text())
    assert config["pretrained_cfg"]["mean"] == [0.5, 0.5, 0.5] and len(config["label_names"]) == 6


def test_a_row_that_does_not_hold_is_told(place) -> None:
    rows = [json.loads(line) for line in (place / "out" / "rows.jsonl").read_text().splitlines()]
    other = place / "other"
    other.mkdir()
    (other / "checkpoints").symlink_to(place / "out" / "checkpoints")
    row = next(r for r in rows if r["protocol"].startswith("finetune") and r["eval_grid"] == 6)
    row["metrics"]["top1"] += 0.02
    (other / "rows.jsonl").write_text(json.dumps(row) + "\n")
    words = ("use", "export-model", str(other), str(other / "m"), "--format", "timm", "--data-root", str(place))
    done = typed(*words, "--check")
    assert done.exit_code == 1 and "does NOT hold for the file" in done.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--format", "tflite"), "no format 'tflite'; there are: onnx, torch, timm"),
        (("--task", "segmentation", "--format", "timm"), "a timm model holds a plain ViT only"),
        (("--where", "seed"), "is not KEY=VALUE"),
        (("--backbone", "vit_*"), "has no row with"),
    ],
)
def test_what_cannot_be_exported_is_one_line(place, words: tuple[str, ...], message: str) -> None:
    done, _ = export(place, "nothing", *words, check=False)
    assert isinstance(done.exception, ValueError) and message in str(done.exception)
    assert "\n" not in str(done.exception)
