"""Drawn scenes: masks, boxes and captions say the same of a picture, and every task reads its form of them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks import TaskError, build_task
from tasks.data.scenes import COLOURS, SHAPES, draw_scene, draw_swarm, scenes_folder
from tasks.data.scenes.folders import RARE, SPLITS


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    scenes_folder(folder)
    return folder


def test_a_seed_is_a_scene_and_things_do_not_overlap() -> None:
    names = [("red", "ring"), ("white", "square"), ("blue", "cross")]
    first, again = (draw_scene(np.random.default_rng(5), names) for _ in range(2))
    assert np.array_equal(first.image, again.image) and first.image.shape == (120, 120, 3)
    assert [t.name for t in first.things] == ["red ring", "white square", "blue cross"]
    assert sum(t.mask.astype(int) for t in first.things).max() == 1
    for thing in first.things:
        x, y, w, h = (int(v) for v in thing.box)
        inside = np.zeros_like(thing.mask)
        inside[y : y + h, x : x + w] = True
        assert thing.mask.any() and not (thing.mask & ~inside).any() and min(w, h) >= 12
        ink = first.image[thing.mask].mean(0)
        nearest = min(COLOURS, key=lambda c: np.abs(ink - COLOURS[c]).sum())
        assert nearest == thing.colour
    swarms = [draw_swarm(np.random.default_rng(1), s) for s in SHAPES]
    assert all(s.dtype == np.uint8 and s.std() > 20 for s in swarms)


def test_labels_agree_with_each_other(root) -> None:
    folder = scenes_folder(root)
    colours = ["ground", *COLOURS]
    captions = json.loads((folder / "captions.json").read_text())["images"]
    for split, place in (("train", "training"), ("val", "validation")):
        boxes = json.loads((folder / "detection" / f"{split}.json").read_text())
        names = {c["id"]: c["name"].split("_") for c in boxes["categories"]}
        said = {f"images/{c['filepath']}/{c['filename']}": c["sentences"] for c in captions if c["filepath"] == place}
        assert len(boxes["images"]) == SPLITS[split] == len(said)
        for image in boxes["images"][:20]:
            name = Path(image["file_name"].replace("images", "annotations")).with_suffix(".png")
            mask = np.asarray(Image.open(folder / name))
            own = [a for a in boxes["annotations"] if a["image_id"] == image["id"]]
            assert {colours[i] for i in np.unique(mask)} - {"ground"} == {names[a["category_id"]][0] for a in own}
            assert sum(a["area"] for a in own) == (mask > 0).sum()
            assert len(own) + len(image["neg_category_ids"]) >= len(names)
            shown = {" ".join(names[a["category_id"]]) for a in own}
            for sentence in said[image["file_name"]]:
                for words in sentence["raw"].replace(" to the left of", ",").replace(" above", ",").split(", "):
                    assert words.removeprefix("a ") in shown


def test_rare_combinations_are_never_shown_in_training(root) -> None:
    folder = scenes_folder(root) / "detection"
    train, val = (json.loads((folder / f"{s}.json").read_text()) for s in ("train", "val"))
    rare = {c["id"] for c in train["categories"] if c["frequency"] == "r"}
    assert {tuple(c["name"].split("_")) for c in train["categories"] if c["id"] in rare} == RARE
    assert not rare & {a["category_id"] for a in train["annotations"]}
    assert rare == rare & {a["category_id"] for a in val["annotations"]}


def test_every_task_reads_them_and_a_plan_draws_nothing(root, tmp_path) -> None:
    for name, split, count in (
        ("classification", "test", 240), ("segmentation", "val", 80), ("retrieval", "test", 80),
        ("image_retrieval", "test", 240),
    ):  # fmt: skip
        assert build_task(name, tmp_path, {"data": "scenes"}).missing() == [] and not list(tmp_path.iterdir())
        task = build_task(name, root, {"data": "scenes"})
        dataset = task.dataset(split)
        assert len(dataset) == count and dataset[0][0].shape == (3, 120, 120), name


def test_a_data_root_that_cannot_be_written_is_named(tmp_path) -> None:
    (tmp_path / "demo").write_text("a file where the folder should be")
    with pytest.raises(TaskError, match="choose another --data-root"):
        scenes_folder(tmp_path)


@pytest.mark.parametrize("name", ["classification", "segmentation", "retrieval", "detection"])
def test_a_data_root_that_cannot_be_written_to_is_told_before_a_run(tmp_path, name) -> None:
    (tmp_path / "file").write_text("")
    for root, why in ((tmp_path / "file", "Not a directory"), (Path("/proc/nothing"), ": /proc;")):
        told = str(build_task(name, root, {"data": "scenes"}).missing()[0])
        assert "the demo's pictures cannot be drawn" in told and why in told and "choose another --data-root" in told
    assert "drawn" not in str(build_task(name, tmp_path / "new", {"data": "scenes"}).missing())
    assert not (tmp_path / "new").exists()
