"""Confusion counts against mmseg's own metric, and scoring of folders with good and bad files."""

import math
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tasks import TaskError
from tasks.segmentation.labels import read_label_map, to_classes
from tasks.segmentation.scoring.confusion import class_scores, confusion_matrix, image_counts, scores
from tasks.segmentation.scoring.folders import score_folder

NAMES = ("mIoU", "mAcc", "aAcc")


def mmseg_scores(pairs, num_classes, ignore_index=255):
    """mmseg's metric before it rounds, as fractions, in float64 (its areas are float32 sums)."""
    from tasks.segmentation import mmcv_lite

    mmcv_lite.install()
    from mmseg.evaluation import IoUMetric

    results = [IoUMetric.intersect_and_union(p, t, num_classes, ignore_index) for p, t in pairs]
    areas = [sum(column).double() for column in zip(*results, strict=True)]
    metrics = IoUMetric.total_area_to_metrics(*areas, metrics=["mIoU"])
    return {
        "mIoU": float(np.nanmean(metrics["IoU"])), "mAcc": float(np.nanmean(metrics["Acc"])),
        "aAcc": float(metrics["aAcc"]), "IoU": metrics["IoU"],
    }  # fmt: skip


def random_pair(seed, num_classes, size=(31, 45), used=None):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, used or num_classes, size).astype(np.uint8)
    prediction = np.where(rng.random(size) < 0.4, label, rng.integers(0, num_classes, size)).astype(np.uint8)
    label[rng.random(size) < 0.1] = 255
    return torch.from_numpy(prediction), torch.from_numpy(label)


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


@pytest.fixture
def folders(tmp_path):
    predictions, annotations = tmp_path / "predictions", tmp_path / "annotations"
    predictions.mkdir(), annotations.mkdir()
    for i in range(3):
        p, t = random_pair(i, 5)
        Image.fromarray(p.numpy()).save(predictions / f"{i}.png")
        Image.fromarray(t.numpy()).save(annotations / f"{i}.png")
    return predictions, annotations


def test_folder_scores_equal_mmseg(folders):
    want = mmseg_scores([tuple(x.long() for x in random_pair(i, 5)) for i in range(3)], 5)
    got = score_folder(*folders, num_classes=5)
    assert {k: got[k] for k in NAMES} == pytest.approx({k: want[k] for k in NAMES}, abs=1e-6)
    assert got["images"] == 3 and list(got["IoU"]) == ["0", "1", "2", "3", "4"]


def test_palette_maps_are_read_by_index(folders):
    plain = score_folder(*folders, num_classes=5)
    for folder in folders:
        for path in folder.glob("*.png"):
            image = Image.fromarray(np.array(Image.open(path)), mode="P")
            image.putpalette([v for i in range(256) for v in (255 - i, i // 2, 7)])
            image.save(path)
    assert Image.open(folders[0] / "0.png").mode == "P"
    assert score_folder(*folders, num_classes=5) == plain


def test_reduce_zero_label_moves_annotations_only(folders):
    plain = score_folder(*folders, num_classes=5)
    for path in folders[1].glob("*.png"):
        values = np.array(Image.open(path))
        Image.fromarray(np.where(values == 255, 0, values + 1).astype(np.uint8)).save(path)
    assert score_folder(*folders, num_classes=5, reduce_zero_label=True) == plain


def test_ignore_index(folders):
    for path in folders[1].glob("*.png"):
        values = np.array(Image.open(path))
        Image.fromarray(np.where(values == 255, 11, values).astype(np.uint8)).save(path)
    with pytest.raises(TaskError, match=r"label 11 in .*\.png is out of range"):
        score_folder(*folders, num_classes=5)
    assert score_folder(*folders, num_classes=5, ignore_index=11)["images"] == 3


def save(path, values):
    Image.fromarray(values).save(path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p, a: save(a / "1.png", np.full((31, 45), 9, np.uint8)), r"label 9 in .*annotations.*1\.png"),
        (lambda p, a: save(p / "1.png", np.full((31, 45), 5, np.uint8)), r"prediction 5 in .*1\.png .* 0\.\.4"),
        (lambda p, a: save(p / "1.png", np.zeros((45, 31), np.uint8)), r"predictions.*1\.png is 31x45 .* is 45x31"),
        (lambda p, a: save(a / "1.png", np.zeros((31, 45), np.uint16)), r"1\.png is a 16-bit image"),
        (lambda p, a: save(a / "1.png", np.zeros((31, 45, 3), np.uint8)), r"1\.png is a mode RGB image"),
        (lambda p, a: (a / "1.png").write_bytes(b"not a picture"), r"1\.png cannot be decoded: not a picture"),
        (lambda p, a: (p / "1.png").unlink(), r"no 1\.png in .*predictions"),
        (lambda p, a: (a / "1.png").unlink(), r"no 1\.png in .*annotations"),
        (lambda p, a: [f.unlink() for f in a.glob("*.png")], r"no PNG in .*annotations"),
    ],
)
def test_bad_files_are_named(folders, spoil, message):
    spoil(*folders)
    with pytest.raises(TaskError, match=message) as caught:
        score_folder(*folders, num_classes=5)
    assert "\n" not in str(caught.value)


def test_bad_arguments(folders, tmp_path):
    with pytest.raises(TaskError, match="no folder"):
        score_folder(tmp_path / "absent", folders[1], 5)
    with pytest.raises(TaskError, match="300 classes"):
        score_folder(*folders, num_classes=300)
    with pytest.raises(TaskError, match="ignore index 256"):
        score_folder(*folders, num_classes=5, ignore_index=256)
    with pytest.raises(TaskError, match="2 class names for 5"):
        score_folder(*folders, num_classes=5, class_names=["a", "b"])


def test_reading_one_pixel(tmp_path):
    save(tmp_path / "a.png", np.array([[3]], np.uint8))
    values = read_label_map(tmp_path / "a.png")
    assert values.shape == (1, 1) and to_classes(values, 5).item() == 3
