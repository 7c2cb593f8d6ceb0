"""Sheets of predicted labels hold no pixel of anybody's picture."""

import numpy as np
import pytest
import yaml
from PIL import Image

from benchmarks.engine.runner import Runner, RunOptions
from benchmarks.engine.suite import load_suite
from benchmarks.report.panels import sheet
from benchmarks.store import Store
from tasks import TaskError
from tasks.data.scenes import scenes_folder
from tasks.segmentation.panels import palette


def test_only_predicted_labels_are_shown(tmp_path) -> None:
    scenes_folder(tmp_path)
    suite = {
        "name": "seen", "backbones": ["flexivit_nano"], "train": [4], "eval": [4],
        "tasks": [{"task": "segmentation", "options": {"data": "scenes"}, "recipe": {"steps": 1, "batch": 2}}],
    }  # fmt: skip
    (tmp_path / "seen.yaml").write_text(yaml.safe_dump(suite))
    store = Store(tmp_path / "out")
    loaded = load_suite(str(tmp_path / "seen.yaml"), tmp_path)
    assert Runner(loaded, store, tmp_path, RunOptions(device="cpu"), lambda text: None).run().status == 0
    found = sheet(store, "scenes", tmp_path, "4", [4, 6])
    assert found.size == (2 * 120, 2 * (16 + 134))
    maps = np.asarray(found)[30:150].reshape(-1, 3)
    known = {tuple(c) for c in palette()[:7].tolist()}
    assert {tuple(c) for c in maps.tolist()} <= known
    photo = np.asarray(Image.open(next((scenes_folder(tmp_path) / "images" / "validation").iterdir())))
    assert not {tuple(c) for c in photo.reshape(-1, 3).tolist()} <= known  # the check above could have failed
    with pytest.raises(TaskError, match="has no row"):
        sheet(store, "camvid11", tmp_path, "4", [4])
