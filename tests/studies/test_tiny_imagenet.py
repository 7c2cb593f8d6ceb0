"""Tiny ImageNet in memory, from the official folder."""

import io

import numpy as np
import pytest
from PIL import Image

from benchmarks.studies.tiny_imagenet import load_tiny_imagenet


def picture(seed: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def test_official_folder_is_read(tmp_path) -> None:
    for i, name in enumerate(("n2", "n1")):
        images = tmp_path / "train" / name / "images"
        images.mkdir(parents=True)
        (images / f"{name}_0.JPEG").write_bytes(picture(i))
    (tmp_path / "wnids.txt").write_text("n2\nn1\n")
    (tmp_path / "val" / "images").mkdir(parents=True)
    (tmp_path / "val" / "images" / "val_0.JPEG").write_bytes(picture(5))
    (tmp_path / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn2\t0\t0\t63\t63\n")
    train, val = load_tiny_imagenet(tmp_path, "train"), load_tiny_imagenet(tmp_path, "val")
    assert train.classes == ["n1", "n2"] and train.labels.tolist() == [0, 1] and val.labels.tolist() == [1]
    assert train.images.shape == (2, 3, 64, 64)
    with pytest.raises(ValueError, match="neither"):
        load_tiny_imagenet(tmp_path / "val", "train")
