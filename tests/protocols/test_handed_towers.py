"""The text tower of a detector: handed on by a run of retrieval, out of a file, or of a tag that must be in a cache."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch.nn import functional as F

from backbones import build_backbone
from benchmarks.engine.identity import Identities
from benchmarks.engine.plan import plan
from benchmarks.engine.reopen import find_row, reopen
from benchmarks.engine.runner import Runner, RunOptions
from benchmarks.engine.suite import cell_task, load_suite
from benchmarks.engine.training import trainer
from benchmarks.store import Store
from tasks import build_task
from tasks.contract import TaskError
from tasks.data.scenes import folders, scenes_folder
from tasks.text.handed import Handed
from tasks.text.towers import build_text_tower, encode_texts

RECIPE = {"steps": 2, "batch": 4, "warmup": 0}
FOUND = {"data": "few", "side": 120, "text": "nano", "train_prompts": "plain", "prompts": "plain"}


def suite_of(folder, name, *tasks):
    suite = {"name": name, "backbones": ["flexivit_nano"], "train": [4], "eval": [4], "tasks": list(tasks)}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(suite))
    return load_suite(str(path), folder)


def detection(run, **more):
    entry = {"task": "detection", "options": {**FOUND, "text_weights": f"run:{run}"}, "recipe": RECIPE}
    return {**entry, "splits": ["val"], **more}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A data root of drawn scenes, and in it the folder of a run of locked-image tuning of two steps."""
    folder = tmp_path_factory.mktemp("tuned")
    with pytest.MonkeyPatch.context() as few:  # fewer pictures, drawn in a moment
        few.setattr(folders, "SWARMS", {"train": 1, "test": 1})
        few.setattr(folders, "SPLITS", {"train": 24, "val": 8})
        place = scenes_folder(folder).relative_to(folder).as_posix()
    captions = {"layout": "karpathy", "files": f"{place}/captions.json", "images": f"{place}/images"}
    captions["splits"] = {"train": 24, "test": 8}
    boxes = {"layout": "lvis", "files": place + "/detection/{split}.json", "images": place}
    boxes["splits"] = {"train": 24, "val": 8}
    card = {"name": "few", "title": "t", "licence": "l", "source": "http://example.org"}
    (folder / "sets").mkdir()
    (folder / "sets" / "few.yaml").write_text(yaml.safe_dump({**card, "captions": captions, "boxes": boxes}))
    cells = {"task": "retrieval", "options": {"data": "few"}, "recipe": RECIPE, "train": [4], "splits": ["test"]}
    summary = Runner(suite_of(folder, "lit", cells), Store(folder / "lit"), folder, options(), [].append).run()
    assert summary.ran and not summary.failed
    return folder


def options():
    return RunOptions(device="cpu")


def test_a_detector_starts_from_the_text_tower_of_a_retrieval_run(tuned, monkeypatch) -> None:
    seen = {}

    def at_step_0(task, model, *args, **more):
        seen.update({k: v.clone() for k, v in model.state_dict().items()})
        return whole(task, model, *args, **more)

    whole = trainer.finetune
    monkeypatch.setattr(trainer, "finetune", at_step_0)
    suite, store = suite_of(tuned, "found", detection(tuned / "lit")), Store(tuned / "found")
    assert [p.state for p in plan(suite, store, tuned)] == ["to do"]
    assert Runner(suite, store, tuned, options(), [].append).run().ran
    row = find_row(Store(tuned / "lit"), {"task": "retrieval"})
    retrieval, lit = reopen(Store(tuned / "lit"), row, tuned)
    tower = lit.text.state_dict()
    tower["positional_embedding"] = tower["positional_embedding"][:16]  # of 32: queries are short
    assert set(tower) == {k.removeprefix("text.") for k in seen if k.startswith("text.")}
    assert all(torch.equal(seen[f"text.{k}"], v) for k, v in tower.items())
    own = build_backbone("flexivit_nano").state_dict()
    assert all(torch.equal(seen[f"backbone.{k}"], v) for k, v in own.items())
    # the two towers see a text alike
    handed = build_text_tower("nano").eval()
    handed.load_state_dict(tower)
    words = ["a red circle", "two blue squares"]
    with torch.no_grad():
        ours = F.normalize(encode_texts(handed, words), dim=-1)
        assert torch.allclose(ours, lit.encode_text(retrieval.tokenize(words)), atol=1e-6)
    (found,) = [r for r in store.rows() if r.status == "ok"]
    assert row.label in found.training["start"] and [p.state for p in plan(suite, store, tuned)] == ["done"]
    # a trained detector opens without the run that it started from
    (tuned / "lit").rename(tuned / "away")
    try:
        reopen(store, found, tuned)
        assert [p.state for p in plan(suite, Store(tuned / "new"), tuned)] == ["blocked"]
    finally:
        (tuned / "away").rename(tuned / "lit")


def test_other_weights_of_the_start_are_another_training(tuned, tmp_path) -> None:
    tower = {f"text.{k}": v for k, v in build_text_tower("tiny").state_dict().items()}
    path, keys = tmp_path / "text.pt", []
    for change in (0.0, 1.0):
        torch.save({k: v + change for k, v in tower.items()}, path)
        more = {**FOUND, "text": "tiny", "text_weights": str(path)}
        (cell,) = suite_of(tmp_path, "file", {**detection(""), "options": more}).cells
        keys.append(Identities("float32").of(cell, cell_task(cell, tuned)).train)
    assert keys[0] != keys[1]


def test_a_run_that_cannot_be_handed_on_blocks_the_cell(tuned, tmp_path) -> None:
    def told(weights, name="nano", backbone="flexivit_nano", seed=0):
        task = build_task("detection", tuned, {**FOUND, "text": name, "text_weights": weights}, seed)
        return " ".join(map(str, task.start(backbone).lacking()))

    assert told(f"run:{tuned / 'lit'}") == ""
    assert "no rows.jsonl of a run; run a suite with the task retrieval" in told(f"run:{tmp_path}")
    assert "no trained text tower of backbone vit_nano_g8, seed 0; it has: backbone flexivit_nano, seed 0" in told(
        f"run:{tuned / 'lit'}", backbone="vit_nano_g8"
    )
    assert "seed 3" in told(f"run:{tuned / 'lit'}", seed=3) and not told(f"run:{tuned / 'lit'},seed=0", seed=3)
    with pytest.raises(TaskError, match="no key 'train'; nearest: train_grid"):
        told(f"run:{tuned / 'lit'},train=8")
    # another tower than the run has trained failed when it was loaded, after the plan had said nothing
    for name in ("tiny", "small", "ViT-B-16-quickgelu"):
        assert f"lit: has trained the text tower nano of width 128, not {name}; options.text must be nano" in told(
            f"run:{tuned / 'lit'}", name
        )
    # two trainings of one backbone and seed: which one must be said
    (row,) = Store(tuned / "lit").rows()
    both = Store(tmp_path / "both")
    both.append([row, row.changed(train_grid=8, train_key="other", row_key="other")])
    assert "has 2 trainings" in told(f"run:{both.folder}") and "train_grid 8" in told(f"run:{both.folder}")
    assert "the weights of the run are gone" in told(f"run:{both.folder},train_grid=8")


@pytest.mark.parametrize("chosen, name, said", [
    ({"data": "coco"}, "small-512", ""), ({"data": "coco"}, "small", "options.text must be small-512"),
    ({"data": "coco", "embed_dim": 384}, "small", ""),
    ({"preset": "ours", "embed_dim": 64}, "small", "no detector takes small"),
    ({"preset": "siglip_lit_coco"}, "nano", "trained the text tower bert-base, not nano; no detector takes bert-base"),
    ({"preset": "siglip_lit_coco", "text": "small"}, "small-512", ""),
    ({"text": "bert-base"}, "bert-base", "no detector takes bert-base"),
    ({"text": "ViT-B-32"}, "ViT-B-32", ""), ({"text": "ViT-B-32"}, "ViT-B-16", "options.text must be ViT-B-32"),
    ({"preset": "nope"}, "nano", ""), (None, "nano", "no trained text tower"),
])  # fmt: skip
def test_the_tower_of_a_run_is_known_by_its_row(tmp_path, chosen, name: str, said: str) -> None:
    row = {
        "task": "retrieval",
        "status": "ok",
        "steps": 3,
        "backbone": "b",
        "seed": 0,
        "options": chosen,
        "train_key": "k",
    }
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "k.pt").touch()
    found = Handed(f"run:{tmp_path}", name, "b", 0).lacking()
    assert bool(found) == bool(said) and all(said in str(error) for error in found), found


def test_a_tower_of_other_sizes_or_of_another_image_tower_is_refused(tuned) -> None:
    task = build_task("detection", tuned, {**FOUND, "text_weights": f"run:{tuned / 'lit'}"})
    start = task.start("flexivit_nano")
    with pytest.raises(TaskError, match="of text tower 'tiny' has shape"):
        small = build_task("detection", tuned, {**FOUND, "text": "tiny"}).model(build_backbone("flexivit_nano"))
        dataclasses.replace(start, name="tiny").load(small)
    with pytest.raises(TaskError, match="was tuned to other weights of flexivit_nano"):
        start.load(task.model(build_backbone("flexivit_nano", pretrained=False)))


def test_a_published_tower_must_be_in_a_cache(tmp_path, monkeypatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def told(task, **chosen):
        return " ".join(map(str, build_task(task, tmp_path, {"data": "scenes", **chosen}).missing()))

    assert "options.text_weights: no weights 'openai' of the text tower ViT-B-16-quickgelu" in told(
        "detection", text_weights="openai"
    )
    assert "hf download timm/vit_base_patch16_clip_224.openai" in told("detection", text_weights="openai")
    assert "is no tag of ViT-B-16-quickgelu; nearest: openai" in told("detection", text_weights="openia")
    assert "no weights 'openai' of the text tower ViT-B-32" in told(
        "retrieval", text="ViT-B-32-quickgelu", text_pretrained="openai"
    )
    place = tmp_path / "hub" / "models--timm--vit_base_patch16_clip_224.openai"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0" * 40)
    (place / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (place / "snapshots" / ("0" * 40) / "open_clip_model.safetensors").write_bytes(b"")
    assert told("detection", text_weights="openai") == ""


def test_tags_are_known_without_torch() -> None:
    code = (
        "import sys; from tasks.text.weights import table_of_tags\n"
        "asked = ('ViT-B-16-quickgelu', 'openai'); known = table_of_tags().get_pretrained_cfg(*asked)\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('torch', 'open_clip', 'open_clip_tags')])\n"
        "import open_clip; print(known == open_clip.get_pretrained_cfg(*asked), known['hf_hub'])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "True timm/vit_base_patch16_clip_224.openai/"]
