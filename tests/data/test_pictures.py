"""Pictures of a run: each task shows a few samples at several grids, beside its rows."""

import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from benchmarks.engine.runner import Runner, RunOptions
from benchmarks.engine.suite import load_suite
from benchmarks.store import Store
from benchmarks.store.gallery import keep_pictures
from tasks import build_task
from tasks.data.scenes import scenes_folder
from tasks.retrieval.panels import RIGHT, strip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    scenes_folder(folder)
    return folder


@pytest.mark.parametrize(
    ("task", "recipe", "words", "size"),
    [
        ("segmentation", {"steps": 1, "batch": 2}, "labels predicted", (4 * 120, 134)),
        ("retrieval", {"steps": 1, "batch": 8}, "five nearest images", (56 + 5 * 76 + 4, 2 * 76 + 4)),
        ("image_retrieval", {}, "green of the same class", (56 + 6 * 76 + 4, 2 * 76 + 4)),
        ("detection", {"steps": 1, "batch": 2}, "best boxes", (3 * 304, 316)),
    ],
)
def test_every_task_shows_its_samples(root, tmp_path, task, recipe, words, size) -> None:
    options = {"data": "scenes"} | ({"text": "tiny"} if task in ("retrieval", "detection") else {})
    suite = {
        "name": "seen", "backbones": ["flexivit_nano"], "train": [4], "eval": [4, 6],
        "tasks": [{"task": task, "options": options, "recipe": recipe}],
    }  # fmt: skip
    (tmp_path / "seen.yaml").write_text(yaml.safe_dump(suite))
    said, store = [], Store(tmp_path / "out")
    summary = Runner(
        load_suite(str(tmp_path / "seen.yaml"), root), store, root, RunOptions(device="cpu"), said.append
    ).run()
    assert summary.status == 0 and not [s for s in said if "no pictures" in s], said
    for row in store.rows():
        with np.load(tmp_path / "out" / row["samples"]) as file:
            samples = dict(file)
        built = build_task(task, root, options)
        again = built.resampled(samples, np.ones((2, len(samples["ids"]))))
        assert again == pytest.approx([row["metrics"][row["metric"]]] * 2)
    index = json.loads((tmp_path / "out" / "pictures" / "index.json").read_text())
    assert len(index) == 3 and all(words in c and c.startswith(task) for c in index.values())
    for name in index:
        with Image.open(tmp_path / "out" / "pictures" / name) as image:
            assert image.size == size and image.convert("L").getextrema()[0] < 250


def test_pictures_of_a_cell_replace_each_other_and_names_stay_in_the_folder(tmp_path) -> None:
    store, image = Store(tmp_path), Image.new("RGB", (4, 4))
    first = keep_pictures(store, "../../evil <b>", [("a", image), ("b", image)])
    assert keep_pictures(store, "../../evil <b>", [("c", image), ("b", image)]) == first
    keep_pictures(store, "other", [("d", image)])
    keep_pictures(store, "other", [("e", image)], key="the same task and backbone with other options")
    index = json.loads((tmp_path / "pictures" / "index.json").read_text())
    assert sorted(c.rpartition(" ")[2] for c in index.values()) == ["b", "c", "d", "e"]
    assert sorted(p.name for p in (tmp_path / "pictures").iterdir()) == sorted([*index, "index.json"])


def test_the_right_image_has_a_green_frame() -> None:
    blue = torch.zeros(3, 8, 8, dtype=torch.uint8)
    sheet = strip({"4x4": [7, 3, -1]}, lambda i: blue, lambda i: i == 3)
    frames = [sheet.getpixel((56 + column * 76 + 1, 5)) for column in range(3)]
    green = tuple(int(RIGHT[i : i + 2], 16) for i in (1, 3, 5))
    assert frames[1] == green and frames[0] != green and frames[2] == (255, 255, 255)
