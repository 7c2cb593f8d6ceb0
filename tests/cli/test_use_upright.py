"""A phone's picture is stored on its side: who looks at it with `use` sees it upright, and so do boxes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from test_use import owl_weights, typed


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("owl") / "owl.safetensors"
    owl_weights(path, 64)
    return path


@pytest.mark.parametrize("turn", [3, 6, 8])
def test_a_phone_s_picture_is_looked_at_upright(tmp_path, weights, turn: int) -> None:
    """Boxes and the drawn answer are those of the picture as a person sees it."""
    stored, seen, exif = tmp_path / "phone.jpg", tmp_path / "seen.png", Image.Exif()
    exif[0x0112] = turn
    noise = np.random.default_rng(turn).integers(0, 255, (6, 9, 3), np.uint8)
    Image.fromarray(noise).resize((90, 60)).save(stored, exif=exif)
    with Image.open(stored) as image:
        upright = ImageOps.exif_transpose(image)
    upright.save(seen)
    assert upright.size == ((90, 60) if turn == 3 else (60, 90))
    answers, drawn = [], []
    for picture in (stored, seen):
        out = tmp_path / f"found_{picture.stem}.png"
        more = ("--text", "a red ring", "--threshold", "0", "--grid", "6", "--out", str(out))
        answers.append(json.loads(typed("use", "detect", str(picture), "--owlvit", str(weights), *more).stdout))
        with Image.open(out) as image:
            drawn.append(np.asarray(image))
    assert answers[0] and answers[0] == answers[1]
    assert np.array_equal(drawn[0], drawn[1])
    width, height = upright.size
    corners = np.array([found["box"] for found in answers[0]])
    corners[:, 2:] += corners[:, :2]
    assert corners.min() >= -0.5 and (corners[:, 2:] <= (width + 0.5, height + 0.5)).all()
    assert corners[:, 3].max() > 60 or turn == 3  # things are found where the stored picture has no pixels
