"""Confusion counts against mmseg's own metric."""

import math
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_tools import NAMES, mmseg_scores, random_pair, save
from PIL import Image

from tasks.data.readers.label_maps import read_label_map, to_classes
from tasks.segmentation.scoring.confusion import class_scores, confusion_matrix, image_counts, scores


@pytest.mark.parametrize(("num_classes", "used"), [(2, 2), (21, 6), (150, 150), (254, 200)])
def test_equal_to_mmseg_on_random_maps(num_classes, used):
    pairs = [random_pair(seed, num_classes, used=used) for seed in range(4)]
    counts = torch.stack([image_counts(p, t, num_classes) for p, t in pairs]).sum(0)
    want = mmseg_scores([(p.long(), t.long()) for p, t in pairs], num_classes)
    got = scores(counts)
    for name in NAMES:
        assert got[name] == pytest.approx(want[name], abs=1e-6)
    by_class = class_scores(counts, [str(c) for c in range(num_classes)])
    assert by_class == {
        str(c): pytest.approx(v, abs=1e-6) for c, v in enumerate(want["IoU"].tolist()) if not math.isnan(v)
    }


def test_equal_to_mmseg_on_real_masks():
    root = Path(os.environ.get("FLEXIVIT_DATA", "nowhere")) / "segmentation"
    if not (root / "voc21_validation_00.tar").exists():
        pytest.skip("needs the mini data (FLEXIVIT_DATA)")
    pairs = []
    with tarfile.open(root / "voc21_validation_00.tar") as tar:
        for member in [m for m in tar.getmembers() if m.name.endswith(".png")][:12]:
            label = torch.from_numpy(np.array(Image.open(tar.extractfile(member))))
            shifted = label.roll(7, 1)
            pairs.append((shifted.masked_fill(shifted == 255, 0), label))
    counts = torch.stack([image_counts(p, t, 21) for p, t in pairs]).sum(0)
    want = mmseg_scores([(p.long(), t.long()) for p, t in pairs], 21)
    assert scores(counts) == pytest.approx({k: want[k] for k in NAMES}, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_counts_are_those_of_a_plain_loop(data):
    num_classes = data.draw(st.integers(1, 6))
    ignore = data.draw(st.sampled_from([255, 0, num_classes]))
    size = data.draw(st.integers(1, 40))
    label = data.draw(st.lists(st.sampled_from([*range(num_classes), ignore]), min_size=size, max_size=size))
    prediction = data.draw(st.lists(st.integers(0, num_classes + 1), min_size=size, max_size=size))
    want = torch.zeros(3, num_classes, dtype=torch.int64)
    for p, t in zip(prediction, label, strict=True):
        if t != ignore:
            want[2, t] += 1
            if p < num_classes:
                want[1, p] += 1
                want[0, p] += int(p == t)
    got = image_counts(torch.tensor(prediction), torch.tensor(label), num_classes, ignore)
    assert torch.equal(got, want)


def test_label_out_of_range_is_an_error():
    with pytest.raises(ValueError, match="label 7 is out of range; labels are 0..4"):
        confusion_matrix(torch.tensor([0, 0]), torch.tensor([1, 7]), 5)
    with pytest.raises(ValueError, match="label 300"):
        confusion_matrix(torch.tensor([0]), torch.tensor([300]), 5)


def test_absent_classes_leave_the_mean():
    counts = image_counts(torch.tensor([0, 0, 1]), torch.tensor([0, 0, 1]), 5)
    assert scores(counts) == {"mIoU": 1.0, "mAcc": 1.0, "aAcc": 1.0}
    assert math.isnan(scores(torch.zeros(3, 5))["aAcc"])


def test_reading_one_pixel(tmp_path):
    save(tmp_path / "a.png", np.array([[3]], np.uint8))
    values = read_label_map(tmp_path / "a.png")
    assert values.shape == (1, 1) and to_classes(values, 5).item() == 3
