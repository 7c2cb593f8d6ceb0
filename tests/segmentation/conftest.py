"""Shared by the tests of segmentation: a drawn data set."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def folder(tmp_path):
    """A data set in mmsegmentation's folders: four pictures of noise, 60x50 px, masks of four classes."""
    rng = np.random.default_rng(0)
    for part in ("images", "annotations"):
        (tmp_path / part / "training").mkdir(parents=True)
    for i in range(4):
        picture = rng.integers(0, 256, (50, 60, 3)).astype(np.uint8)
        Image.fromarray(picture).save(tmp_path / "images" / "training" / f"{i}.jpg")
        Image.fromarray(rng.integers(0, 4, (50, 60)).astype(np.uint8)).save(
            tmp_path / "annotations" / "training" / f"{i}.png"
        )
    return tmp_path
