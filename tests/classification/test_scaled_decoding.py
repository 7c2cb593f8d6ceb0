"""`decode: scaled`: large JPEGs decoded smaller. Off by default and then in no key; set, it is in row and key."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from benchmarks.engine.identity import Identities, cell_key
from benchmarks.engine.runner import Runner, RunOptions
from benchmarks.engine.suite import cell_task, load_suite
from benchmarks.store import Store
from tasks import build_task
from tasks.contract import TaskError
from tasks.data.decoding import decode
from tasks.data.errors import Wrong
from tasks.data.pictures import read_reduced, read_rgb


def photograph(width: int = 500, height: int = 375, seed: int = 0, kind: str = "JPEG", mode: str = "RGB") -> bytes:
    """Smooth colours with a little noise, as a camera gives them."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8)).resize((width, height), Image.BICUBIC)
    noisy = np.asarray(coarse, np.int64) + random.integers(-6, 7, (height, width, 3))
    sink = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).convert(mode).save(sink, kind)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("side", "shape"), [(400, (375, 500)), (188, (375, 500)), (187, (188, 250)), (93, (94, 125)), (20, (47, 63))]
)
def test_the_shorter_side_keeps_what_is_needed(side: int, shape: tuple[int, int]) -> None:
    content = photograph()
    found = read_reduced(content, side)
    assert found.shape == (*shape, 3) and found.dtype == np.uint8 and min(shape) >= min(side, 375)
    if shape == (375, 500):
        assert np.array_equal(found, read_rgb(content))
        return
    area = np.asarray(Image.fromarray(read_rgb(content)).resize(shape[::-1], Image.BOX), np.int64)
    assert np.abs(found - area).mean() < 3  # near an area resize
    assert torch.equal(decode(content, reduced=side), torch.from_numpy(found).permute(2, 0, 1))


def test_only_colour_jpegs_are_reduced_and_torn_ones_are_told() -> None:
    for content in (photograph(kind="PNG"), photograph(mode="L"), photograph(mode="CMYK")):
        assert np.array_equal(read_reduced(content, 50), read_rgb(content))
    with pytest.raises(Wrong, match="torn.jpg.*cannot be decoded"):
        read_reduced(photograph()[:4000], 50, "torn.jpg")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for split in ("train", "test"):
        for number in range(4):
            place = tmp_path / "own" / split / "ab"[number % 2] / f"{number}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(photograph(120, 90, number))
    return tmp_path


def test_a_row_says_it_and_has_another_key(data: Path) -> None:
    options = {"data": "own/", "protocol": "knn", "image_size": 24, "neighbours": 1}
    tasks = [{"task": "classification", "options": options | more} for more in ({}, {"decode": "scaled"})]
    suite = {"name": "own", "backbones": [{"name": "flexivit_nano", "options": {"pretrained": False}}]}
    (data / "own.yaml").write_text(yaml.safe_dump(suite | {"train": [], "eval": [2], "tasks": tasks}))
    found, store = load_suite(str(data / "own.yaml"), data), Store(data / "out")
    assert Runner(found, store, data, RunOptions(device="cpu"), [].append).run().status == 0
    full, scaled = store.rows()
    assert scaled.options["decode"] == "scaled" and "decode" not in full.options
    assert full.row_key != scaled.row_key and full.cell_key != scaled.cell_key
    # what is at its default is in no key, whether it is written or not
    written = tasks[0] | {"options": options | {"decode": "full"}}
    (data / "own.yaml").write_text(yaml.safe_dump(suite | {"train": [], "eval": [2], "tasks": [written]}))
    (cell,) = load_suite(str(data / "own.yaml"), data).cells
    task = cell_task(cell, data)
    assert "decode" not in task.options.stage("train") and cell_key(cell, task) == full.cell_key
    assert list(Identities("float32").of(cell, task).rows.values()) == [full.row_key]


def test_training_and_evaluation_see_the_smaller_picture(data: Path) -> None:
    shared = {"data": "own/", "image_size": 24}
    full, scaled = (build_task("classification", data, shared | more) for more in ({}, {"decode": "scaled"}))
    for split in ("train", "test"):
        assert full.dataset(split).picture(0).shape == (3, 90, 120)
        assert scaled.dataset(split).picture(0).shape == (3, 45, 60)  # 27 are needed
    with pytest.raises(TaskError, match="no decode 'half'; there are: full, scaled"):
        build_task("classification", data, shared | {"decode": "half"})
