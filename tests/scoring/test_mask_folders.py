"""`score segmentation`: mmseg's numbers over folders of files, whatever their names and values; faults named."""

import json

import numpy as np
import pytest
from front_door import call
from mask_tools import NAMES, mmseg_scores, random_pair, save
from PIL import Image

from tasks.contract import TaskError
from tasks.data.errors import Missing, Wrong
from tasks.segmentation.scoring.folders import score_segmentation


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
    got = score_segmentation(*folders, num_classes=5)
    assert {k: got.metrics[k] for k in NAMES} == pytest.approx({k: want[k] for k in NAMES}, abs=1e-6)
    by_class = {f"IoU/{c}": pytest.approx(float(v), abs=1e-6) for c, v in enumerate(want["IoU"])}
    assert {k: v for k, v in got.metrics.items() if k not in NAMES} == by_class
    assert got.counts["images"] == 3 and got.counts["pixels"] + got.counts["pixels_ignored"] == 3 * 31 * 45
    assert got.notes == () and list(got.as_json()) == ["task", "protocol", "metrics", "counts"]


def test_palette_maps_are_read_by_index(folders):
    plain = score_segmentation(*folders, num_classes=5)
    for folder in folders:
        for path in folder.glob("*.png"):
            image = Image.fromarray(np.array(Image.open(path)), mode="P")
            image.putpalette([v for i in range(256) for v in (255 - i, i // 2, 7)])
            image.save(path)
    assert Image.open(folders[0] / "0.png").mode == "P"
    assert score_segmentation(*folders, num_classes=5) == plain


def test_reduce_zero_label_moves_annotations_only(folders):
    plain = score_segmentation(*folders, num_classes=5)
    for path in folders[1].glob("*.png"):
        values = np.array(Image.open(path))
        Image.fromarray(np.where(values == 255, 0, values + 1).astype(np.uint8)).save(path)
    assert score_segmentation(*folders, num_classes=5, reduce_zero_label=True) == plain


def test_ignore_index(folders):
    for path in folders[1].glob("*.png"):
        values = np.array(Image.open(path))
        Image.fromarray(np.where(values == 255, 11, values).astype(np.uint8)).save(path)
    with pytest.raises(TaskError, match=r".*\.png: label 11 is out of range"):
        score_segmentation(*folders, num_classes=5)
    assert score_segmentation(*folders, num_classes=5, ignore_index=11).counts["images"] == 3


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda p, a: save(a / "1.png", np.full((31, 45), 9, np.uint8)),
            r"label 9 .*1\.png|annotations.*1\.png.*label 9",
        ),
        (
            lambda p, a: save(p / "1.png", np.full((31, 45), 5, np.uint8)),
            r"1\.png: prediction 5 .* 0\.\.4; .*--predictions-start-at 1",
        ),
        (lambda p, a: save(p / "1.png", np.zeros((45, 31), np.uint8)), r"predictions.*1\.png: is 31x45 .* is 45x31"),
        (lambda p, a: save(a / "1.png", np.zeros((31, 45), np.uint16)), r"1\.png: is a 16-bit image"),
        (lambda p, a: save(a / "1.png", np.zeros((31, 45, 3), np.uint8)), r"1\.png: is a mode RGB image"),
        (lambda p, a: (a / "1.png").write_bytes(b"not a picture"), r"1\.png: cannot be decoded: not a picture"),
        (lambda p, a: (p / "1.png").unlink(), r"predictions: no 1\.png; .* 2 of 3 pictures"),
        (lambda p, a: (a / "1.png").unlink(), r"annotations: no 1\.png"),
        (lambda p, a: [f.unlink() for f in a.glob("*.png")], r"annotations: no file ends in \.png .*no file"),
    ],
)
def test_bad_files_are_named(folders, spoil, message):
    spoil(*folders)
    with pytest.raises(TaskError, match=message) as caught:
        score_segmentation(*folders, num_classes=5)
    assert "\n" not in str(caught.value)


def test_bad_arguments(folders, tmp_path):
    with pytest.raises(TaskError, match="no such folder of predictions"):
        score_segmentation(tmp_path / "absent", folders[1], 5)
    with pytest.raises(TaskError, match="300 classes"):
        score_segmentation(*folders, num_classes=300)
    with pytest.raises(TaskError, match="ignore index 256"):
        score_segmentation(*folders, num_classes=5, ignore_index=256)
    with pytest.raises(TaskError, match="2 class names for 5"):
        score_segmentation(*folders, num_classes=5, class_names=["a", "b"])
    with pytest.raises(TaskError, match="cannot start at 252"):
        score_segmentation(*folders, num_classes=5, predictions_start_at=252)
    for values in ((0, 1), (0, 1, 2, 3, 3), (0, 1, 2, 3, 256)):
        with pytest.raises(TaskError, match="prediction values .* 5 different numbers"):
            score_segmentation(*folders, num_classes=5, prediction_values=values)


def change(folder, mapping):
    for path in folder.rglob("*.png"):
        save(path, mapping(np.array(Image.open(path))).astype(np.uint8))


def test_predictions_that_count_from_one(folders):
    plain = score_segmentation(*folders, num_classes=5)
    change(folders[0], lambda v: v + 1)
    with pytest.raises(Wrong, match=r"prediction 5 .* 0\.\.4; .*--predictions-start-at 1"):
        score_segmentation(*folders, num_classes=5)
    assert score_segmentation(*folders, num_classes=5, predictions_start_at=1) == plain
    change(folders[0], lambda v: v - 1)
    with pytest.raises(Wrong, match=r"prediction 0 .* 1\.\.5; .*--predictions-start-at 0"):
        score_segmentation(*folders, num_classes=5, predictions_start_at=1)


def test_a_perfect_prediction_that_counts_from_one_is_doubted(tmp_path):
    label = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3 + 1  # ADE20k: 1..3, and 0 for ignored
    save(tmp_path / "a" / "x.png", label)
    save(tmp_path / "p" / "x.png", label)
    found = score_segmentation(tmp_path / "p", tmp_path / "a", 150, reduce_zero_label=True)
    assert found.metrics["mIoU"] == 0
    assert any("100.0% if class 0 is 1" in n and "--predictions-start-at 1" in n for n in found.notes)
    fixed = score_segmentation(tmp_path / "p", tmp_path / "a", 150, reduce_zero_label=True, predictions_start_at=1)
    assert fixed.metrics["mIoU"] == 1 and not any("agree" in n for n in fixed.notes)


def test_ranges_that_do_not_meet_are_said(tmp_path):
    save(tmp_path / "a" / "x.png", np.full((3, 4), 2, np.uint8))
    save(tmp_path / "p" / "x.png", np.full((3, 4), 7, np.uint8))
    found = score_segmentation(tmp_path / "p", tmp_path / "a", 9)
    assert any("no class that is predicted occurs" in n and "hold 7, annotations 2" in n for n in found.notes)


def test_masks_of_0_and_255(tmp_path):
    label = np.array([[0, 0, 255, 255]], np.uint8)
    save(tmp_path / "a" / "x.png", label)
    save(tmp_path / "p" / "x.png", np.zeros((1, 4), np.uint8))
    told = score_segmentation(tmp_path / "p", tmp_path / "a", 2)
    assert told.metrics["mIoU"] == 1 and told.counts["classes_annotated"] == 1
    assert any("--annotation-values 0,255" in n for n in told.notes) and any("1 of 2 classes" in n for n in told.notes)
    right = score_segmentation(tmp_path / "p", tmp_path / "a", 2, annotation_values=(0, 255))
    assert right.metrics == {"mIoU": 0.25, "mAcc": 0.5, "aAcc": 0.5, "IoU/0": 0.5, "IoU/1": 0.0}
    save(tmp_path / "p" / "x.png", label)
    with pytest.raises(Wrong, match="prediction 255 .*--prediction-values 0,255"):
        score_segmentation(tmp_path / "p", tmp_path / "a", 2, annotation_values=(0, 255))
    both = score_segmentation(tmp_path / "p", tmp_path / "a", 2, annotation_values=(0, 255), prediction_values=(0, 255))
    assert both.metrics["mIoU"] == 1
    save(tmp_path / "a" / "x.png", np.array([[0, 0, 3, 255]], np.uint8))
    with pytest.raises(Wrong, match="label 3 is none of the annotation values 0, 255"):
        score_segmentation(tmp_path / "p", tmp_path / "a", 2, annotation_values=(0, 255), prediction_values=(0, 255))


def test_classes_that_no_mask_holds_are_said(folders):
    found = score_segmentation(*folders, num_classes=25, class_names=[f"c{i}" for i in range(25)])
    note = next(n for n in found.notes if "occur in no annotation" in n)
    assert note.startswith("20 of 25 classes") and "c5, c6" in note and "and 12 more" in note


def cityscapes(folders, tmp_path, nested=True):
    """Maps as downloaded, with pictures of the masks beside them, and predictions as mmseg names them."""
    for i, city in enumerate(("ulm", "ulm", "bonn")):
        name = f"{city}_{i:06}_000019"
        label, prediction = (np.array(Image.open(f / f"{i}.png")) for f in (folders[1], folders[0]))
        save(tmp_path / "gtFine" / "val" / city / f"{name}_gtFine_labelTrainIds.png", label)
        save(tmp_path / "gtFine" / "val" / city / f"{name}_gtFine_labelIds.png", label + 1)
        save(tmp_path / "gtFine" / "val" / city / f"{name}_gtFine_color.png", np.zeros((31, 45, 3), np.uint8))
        save(tmp_path / "out" / (city if nested else ".") / f"{name}_leftImg8bit.png", prediction)
    return tmp_path / "out", tmp_path / "gtFine" / "val"


@pytest.mark.parametrize("nested", [True, False])
def test_cityscapes_as_downloaded(folders, tmp_path, nested):
    plain = score_segmentation(*folders, num_classes=5)
    out, val = cityscapes(folders, tmp_path, nested)
    found = score_segmentation(out, val, 5)
    assert found.metrics == plain.metrics
    assert any("_gtFine_labelTrainIds.png" in n for n in found.notes)
    assert any("paired by their names" in n for n in found.notes) != nested
    suffixes = {"prediction_suffix": "_leftImg8bit.png", "annotation_suffix": "_gtFine_labelTrainIds.png"}
    assert score_segmentation(out, val, 5, **suffixes).metrics == plain.metrics
    for path in val.rglob("*TrainIds.png"):
        path.unlink()
    with pytest.raises(Wrong, match="createTrainIdLabelImgs"):
        score_segmentation(out, val, 5)
    suffixes["annotation_suffix"] = "_instanceIds.png"
    with pytest.raises(Missing, match=r"no file ends in _instanceIds\.png .*there: 6 \.png; say --annotation-suffix"):
        score_segmentation(out, val, 5, **suffixes)


def test_other_suffixes_hidden_files_and_names_that_do_not_meet(folders):
    plain = score_segmentation(*folders, num_classes=5)
    for path in folders[1].glob("*.png"):
        path.rename(path.with_name(f"{path.stem}_mask.PNG"))
    (folders[1] / "._0_mask.PNG").write_bytes(b"a double of macOS")
    (folders[1] / ".ipynb_checkpoints").mkdir()
    (folders[1] / ".ipynb_checkpoints" / "0.png").write_bytes(b"")
    with pytest.raises(Missing, match=r"0 of 3 pictures have both; say --prediction-suffix or --annotation-suffix"):
        score_segmentation(*folders, num_classes=5)
    assert score_segmentation(*folders, num_classes=5, annotation_suffix="_mask.png") == plain


def test_the_front_door(monkeypatch, capsys, folders):
    change(folders[0], lambda v: v + 1)
    arguments = ["score", "segmentation", "--predictions", str(folders[0]), "--annotations", str(folders[1])]
    arguments += ["--num-classes", "5", "--predictions-start-at"]
    code, out, err = call(monkeypatch, capsys, *arguments, "1")
    assert code == 0 and err == "" and list(json.loads(out)) == ["task", "protocol", "metrics", "counts"]
    code, out, err = call(monkeypatch, capsys, *arguments, "0")
    assert code == 2 and out == "" and err.count("\n") == 1
    code, out, err = call(monkeypatch, capsys, *arguments, "1", "--annotation-values", "0,x")
    assert code == 2 and out == "" and "--annotation-values" in err and err.count("\n") == 1
