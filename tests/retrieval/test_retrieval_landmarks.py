"""Revisited Oxford and Paris in their official form: truth as a pickle, queries cut to their box."""

import os
import pickle

import numpy as np
import pytest
from data_tools import sized
from PIL import Image
from torch import nn

from backbones.contract import Features
from benchmarks.engine.sweep import sweep
from tasks import TaskError, build_task

COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]


class Mean(nn.Module):
    embed_dim = 3

    def forward(self, images, grid):
        pooled = images.float().mean((2, 3)) - 90
        return Features(pooled, pooled[:, None, None], pooled[:, None][:, :0])


@pytest.fixture
def folder(tmp_path):
    """Nine gallery pictures of three colours; queries show their colour inside of the box and another outside."""
    jpg = tmp_path / "roxford5k" / "jpg"
    jpg.mkdir(parents=True)
    for i in range(9):
        Image.new("RGB", (40, 30), COLOURS[i % 3]).save(jpg / f"g{i}.jpg", quality=95)
    for i in range(3):
        image = Image.new("RGB", (60, 60), COLOURS[(i + 1) % 3])
        image.paste(COLOURS[i], (5, 10, 25, 50))
        image.save(jpg / f"q{i}.jpg", quality=95)
    box = [6.0, 12.0, 24.0, 48.0]
    gnd = [{"bbx": box, "easy": np.array([i, i + 3]), "hard": [i + 6], "junk": []} for i in range(3)]
    truth = {"gnd": gnd, "imlist": [f"g{i}" for i in range(9)], "qimlist": [f"q{i}" for i in range(3)]}
    (tmp_path / "roxford5k" / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(truth))
    return tmp_path


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name in ("roxford5k", "rparis6k"):
        sized(monkeypatch, name, "landmarks")


def build(root, **options):
    return build_task("landmark_retrieval", root, {"image_size": 24, **options})


def test_buildings_are_found_by_what_is_in_the_box(folder) -> None:
    task = build(folder)
    assert task.missing() == [] and len(task.dataset("gallery")) == 9
    ((_, metrics, samples),) = sweep(task, task.model(Mean()), task.views([4]), "test").rows
    assert metrics == {"mAP_easy": 1.0, "mAP_medium": 1.0, "mAP_hard": 1.0}
    assert samples["mAP_hard"].tolist() == [1.0] * 3
    whole = task.dataset("test")
    whole.boxes = None
    inside, outside = (d[0][0].float().mean((1, 2)).argmax() for d in (task.dataset("test"), whole))
    assert inside == 0 and outside == 1  # without its box, a query would show something else
    drawn = task.resampled({"mAP_medium": np.array([1.0, 0.0, np.nan])}, np.array([[1.0, 1, 1], [2, 0, 1]]))
    assert drawn.tolist() == [0.5, 1.0]


def test_what_is_wrong_is_told(folder) -> None:
    with pytest.raises(TaskError, match="nearest: roxford5k"):
        build(folder, data="oxford5k")
    assert "get it from http" in str(build(folder, data="rparis6k").missing()[0])
    (folder / "roxford5k" / "jpg" / "g4.jpg").unlink()
    assert "the first is g4.jpg" in str(build(folder).missing()[0])
    path = folder / "roxford5k" / "gnd_roxford5k.pkl"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {folder / 'ran'}",)

    path.write_bytes(pickle.dumps({"gnd": Evil()}))
    assert "which is no data" in str(build(folder).missing()[0]) and not (folder / "ran").exists()
    path.write_bytes(b"torn")
    assert "no truth of the revisited benchmark" in str(build(folder).missing()[0])
    with pytest.raises(TaskError, match="trains nothing"):
        build(folder).loss(None, None, (4, 4))


def test_a_smoke_test_keeps_the_answers_of_its_queries(folder) -> None:
    task = build(folder)
    for limit, expected in ((1, [0]), (2, [0, 1]), (4, [0, 1, 2, 6]), (9, list(range(9)))):
        assert list(task.smoke("gallery", 9, limit)) == expected
        ((_, metrics, samples),) = sweep(task, task.model(Mean()), task.views([4]), "test", limit=limit).rows
        assert metrics["mAP_medium"] == 1.0 and len(samples["ids"]) == min(limit, 3)
