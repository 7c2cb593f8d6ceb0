"""What a run leaves is of use: things are found, classes named, an index handed on, by the verbs as typed."""

import dataclasses
import json

import faiss
import pytest
import torch
import yaml
from PIL import Image
from runner_tools import run_toy
from typer.testing import CliRunner

import run_all
from backbones import build_backbone
from benchmarks.engine.reopen import find_row, reopen
from benchmarks.store import Store
from tasks import TaskError
from tasks.data.scenes import scenes_folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Drawn scenes, and a run of a step or two each of retrieval, detection and upstream training."""
    folder = tmp_path_factory.mktemp("use")
    scenes_folder(folder)
    options = {"data": "scenes", "text": "tiny"}
    tries = [{"lr": 1e-4}, {"lr": 1e-3}]
    suite = {
        "name": "used", "backbones": ["flexivit_nano"], "train": [4], "eval": [4],
        "tasks": [
            {"task": "retrieval", "options": options, "recipe": {"steps": 1, "batch": 8, "candidates": tries}},
            {"task": "detection", "options": options, "recipe": {"steps": 1, "batch": 2}},
            {
                "task": "upstream", "options": {"preset": "i21k_sup", "data": "scenes"}, "train": ["random:4,8"],
                "recipe": {"steps": 2, "batch": 2, "warmup": 1},
                "backbones": [{"name": "flexivit_nano_scratch", "options": {"patch": 15}}],
            },
        ],
    }  # fmt: skip
    (folder / "used.yaml").write_text(yaml.safe_dump(suite))
    done = typed("run", str(folder / "used.yaml"), "--data-root", str(folder), "--out", str(folder / "out"))
    assert done.exit_code == 0, done.output
    return folder


def typed(*words: str):
    return CliRunner().invoke(run_all.app, list(words))


def test_things_are_found_by_text_and_by_example(place) -> None:
    image = str(scenes_folder(place) / "images" / "validation" / "0000.jpg")
    base = ("use", "detect", image, "--run", str(place / "out"), "--data-root", str(place), "--grid", "8")
    words = ("--text", "a red ring", "--text", "a disc", "--threshold", "0", "--out", str(place / "f.png"))
    by_text = typed(*base, *words)
    found = json.loads(by_text.stdout)
    assert {f["label"] for f in found} == {"a red ring", "a disc"} and len(found) == 2 * 64
    assert (place / "f.png").stat().st_size > 1000
    by_example = json.loads(typed(*base, "--like", "10,10,40,40", "--threshold", "0").stdout)
    assert by_example and by_example[0]["label"] == "query"
    for words, message in (
        ((), "say what to look for"), (("--like", "1,2"), "is not X,Y,W,H"),
        (("--text", "a", "--backbone", "vit_*"), "backbone=flexivit_nano"),
    ):  # fmt: skip
        error = typed(*base, *words).exception
        assert isinstance(error, ValueError) and message in str(error)


def test_classes_are_named_without_training_on_them(place) -> None:
    done = typed("use", "zeroshot", str(place / "out"), "--data", "scenes", "--data-root", str(place), "--grids", "4,8")
    found = json.loads(done.stdout)
    assert found["images"] == 240 and set(found["grids"]) == {"4", "8"} and found["backbone"] == "flexivit_nano"
    for metrics in found["grids"].values():
        assert 0 <= metrics["top1"] <= metrics["top5"] <= 1 and metrics["chance_top1"] == pytest.approx(1 / 6)


def test_an_index_is_read_by_plain_faiss(place) -> None:
    out = place / "gallery"
    more = ("--data", "scenes", "--data-root", str(place), "--grid", "4")
    done = typed("use", "export-index", "flexivit_nano", str(out), *more)
    assert "240 images" in done.output
    index, names = faiss.read_index(str(out / "index.faiss")), json.loads((out / "ids.json").read_text())["ids"]
    assert index.ntotal == len(names) == 240 and names[0].endswith(".png")
    own = index.reconstruct(7)[None]
    assert index.search(own, 1)[1][0, 0] == 7


def test_a_row_is_reopened_with_the_weights_that_won(place) -> None:
    store = Store(place / "out")
    row = find_row(store, {"task": "retrieval", "data": "scenes", "train_grid": 4})
    task, model = reopen(store, row, place)
    assert task.recipe.lr == row.training["candidates"][row.training["won"]]["candidate"]["lr"]
    assert not model.training
    with pytest.raises(TaskError, match="it has: task=detection backbone=flexivit_nano; task=retrieval"):
        find_row(store, {"task": "retrieval", "backbone": "vit_*"})
    gone = dataclasses.replace(row, train_key="0" * 16)
    with pytest.raises(TaskError, match="run the suite again"):
        reopen(store, gone, place)


def owl_weights(path, width: int, size: float = 0.0) -> None:
    """A file as transformers writes it for OWL-ViT, random and small; `size` moves the logits of boxes' sides."""
    from safetensors.torch import save_file
    from transformers import OwlViTConfig, OwlViTForObjectDetection

    tower = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 1}
    vision = {**tower, "image_size": 96, "patch_size": 16}
    config = OwlViTConfig(text_config=tower, vision_config=vision, projection_dim=width)
    state = OwlViTForObjectDetection(config).state_dict()
    for name in ("weight", "bias"):  # boxes lie at their tokens, and none outside of the picture
        state[f"box_head.dense2.{name}"].zero_()
    state["box_head.dense2.bias"][2:] = size
    save_file({k: v.contiguous() for k, v in state.items()}, path)


def test_published_owlvit_weights_look_too(place) -> None:
    image = str(scenes_folder(place) / "images" / "validation" / "0000.jpg")

    def look(width: int):
        owl_weights(place / "owl.safetensors", width)
        more = ("--text", "a red ring", "--threshold", "0", "--grid", "8")
        return typed("use", "detect", image, "--owlvit", str(place / "owl.safetensors"), *more)

    assert len(json.loads(look(64).stdout)) == 64  # another grid than the weights' own six
    error = look(32).exception
    assert isinstance(error, TaskError) and "not OWL-ViT heads: size mismatch" in str(error)
    (place / "owl.safetensors").write_bytes(b"torn")
    error = typed("use", "detect", image, "--owlvit", str(place / "owl.safetensors"), "--text", "a").exception
    assert isinstance(error, TaskError) and "cannot be read" in str(error)


@pytest.mark.parametrize("wide", [True, False])
def test_boxes_without_area_are_no_finds(tmp_path, wide: bool) -> None:
    """Two thirds of the padded square are padding, whose boxes are cut to lines at the picture's edge."""
    width, height = (96, 32) if wide else (32, 96)
    Image.new("RGB", (width, height), "grey").save(tmp_path / "long.png")

    def look(size: float) -> list:
        owl_weights(tmp_path / "owl.safetensors", 64, size)
        more = ("--text", "a red ring", "--threshold", "0", "--grid", "6", "--out", str(tmp_path / "drawn.png"))
        words = ("use", "detect", str(tmp_path / "long.png"), "--owlvit", str(tmp_path / "owl.safetensors"), *more)
        return [found["box"] for found in json.loads(typed(*words).stdout)]

    boxes = look(0.0)
    assert len(boxes) == 12  # of 36 tokens; those at the edges are cut to halves
    for x, y, w, h in boxes:
        assert min(w, h) > 7 and min(x, y) > -0.5 and x + w < width + 0.5 and y + h < height + 0.5
    assert look(-30.0) == []  # a detector that finds points


def test_a_trained_backbone_is_handed_on_with_its_classifier(place) -> None:
    words = ("use", "export-backbone", str(place / "out"))
    more = ("--data-root", str(place))
    done = typed(*words, str(place / "mine.safetensors"), *more)
    assert done.exit_code == 0 and "upstream/scenes" in done.output, done.output
    images = torch.randint(0, 256, (2, 3, 120, 120), dtype=torch.uint8)
    store = Store(place / "out")
    model = reopen(store, find_row(store, {"task": "upstream"}), place)[1]
    mine = build_backbone(str(place / "mine.safetensors")).eval()
    with torch.no_grad():
        assert torch.equal(mine.head(mine(images, 8).pooled), model(images, (8, 8)))
    assert mine.base_kernel.shape[-1] == 15 and model.backbone.head.bias.ne(-10).any()
    tuned = typed(*words, str(place / "tuned.safetensors"), *more, "--task", "detection", "--half")
    assert tuned.exit_code == 0 and build_backbone(str(place / "tuned.safetensors")).embed_dim == 128
    other = ("--backbone", "vit_*")
    for wrong, message in (
        ((str(place / "mine.pt"), *more), "does not end in .safetensors"),
        ((str(place / "a.safetensors"), *more, *other), "task=upstream data=scenes backbone=flexivit_nano_scratch"),
    ):
        assert message in str(typed(*words, *wrong).exception)
    assert not list(place.glob("*.tried.*")) and not (place / "a.safetensors").exists()


def test_the_weights_of_a_single_candidate_are_found(tmp_path) -> None:
    """It competes with nobody, so its weights lie under the key of the cell."""
    summary, rows = run_toy(tmp_path, settings=("recipe.candidates=[{batch: 4}]",))
    assert summary.status == 0 and "won" not in rows[0].training
    task, model = reopen(Store(tmp_path / "out", True), rows[0], tmp_path)
    assert task.recipe.batch == 4 and not task.recipe.candidates and not model.training
