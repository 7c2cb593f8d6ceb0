"""`score segmentation`: folders of label maps, made anywhere, to mIoU, mAcc, aAcc and per-class IoU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tasks.contract import TaskError
from tasks.contract.score import Score
from tasks.data.errors import Wrong
from tasks.data.readers.label_maps import IGNORE, check_sizes, read_label_map, to_classes
from tasks.segmentation.scoring.confusion import MAX_CLASSES, class_scores, pair_counts, scores
from tasks.segmentation.scoring.doubts import doubts
from tasks.segmentation.scoring.pairing import pairs

NONE = -1  # the class of a value that is none


def score_segmentation(
    predictions: str | Path,
    annotations: str | Path,
    num_classes: int,
    *,
    reduce_zero_label: bool = False,
    ignore_index: int = IGNORE,
    class_names: Sequence[str] | None = None,
    predictions_start_at: int = 0,
    prediction_values: Sequence[int] | None = None,
    annotation_values: Sequence[int] | None = None,
    prediction_suffix: str | None = None,
    annotation_suffix: str | None = None,
) -> Score:
    """Scores of the label maps in `predictions` against those of the same names in `annotations`, as mmseg's metric.

    Args:
        reduce_zero_label: in annotations 0 is ignored and k is class k-1 (ADE20k). It does not concern predictions.
        predictions_start_at: the value of class 0 in predictions: 0, or 1 as mmseg writes results of ADE20k.
        prediction_values, annotation_values: the value of each class in the files, such as (0, 255), where it is not
            the class itself.
        prediction_suffix, annotation_suffix: how names end; see `label_maps` for what is taken otherwise.
    Returns: fractions `mIoU mAcc aAcc`, and `IoU/NAME` of the classes that occur in annotations or predictions.
    Raises: Missing and Wrong for files that are missing, have no partner, or are of another size; values that are out
        of range: which file, which value. TaskError for invalid arguments.

    Example: `score_segmentation("out", "annotations/validation", 150, reduce_zero_label=True).metrics["mIoU"]`
    """
    _check_arguments(num_classes, ignore_index, predictions_start_at)
    names = list(class_names) if class_names is not None else [str(c) for c in range(num_classes)]
    if len(names) != num_classes:
        raise TaskError(f"{len(names)} class names for {num_classes} classes")
    if prediction_values is None:
        prediction_values = range(predictions_start_at, predictions_start_at + num_classes)
    elif predictions_start_at:
        raise TaskError("prediction values and where predictions start exclude each other")
    if annotation_values is not None and reduce_zero_label:
        raise TaskError("annotation values and reduce_zero_label exclude each other")
    class_of = _table(prediction_values, num_classes, "prediction")
    label_of = None if annotation_values is None else _table(annotation_values, num_classes, "annotation")
    files, notes = pairs(predictions, annotations, prediction_suffix, annotation_suffix)
    joint, stored = torch.zeros(256, 256, dtype=torch.int64), np.zeros(256, bool)
    for predicted, annotated in files:
        values = read_label_map(annotated)
        stored[np.unique(values)] = True
        if label_of is None:
            label = to_classes(values, num_classes, ignore_index, reduce_zero_label, annotated)
        else:
            label = _mapped(values, label_of, ignore_index, annotated)
        prediction = read_label_map(predicted)
        check_sizes(label.shape, prediction.shape, "its annotation", predicted)
        counts = pair_counts(torch.from_numpy(prediction), torch.from_numpy(label))
        _check_prediction(counts, class_of, num_classes, predicted)
        joint += counts
    known = joint[:num_classes]  # pixels that are ignored are in row 255
    if not known.any():
        raise Wrong("no pixel is labelled: all are ignored", path=annotations)
    matrix = known[:, torch.tensor(list(prediction_values))]
    total = torch.stack((matrix.diagonal(), matrix.sum(0), matrix.sum(1)))
    metrics = {**scores(total), **{f"IoU/{name}": v for name, v in class_scores(total, names).items()}}
    numbers = {
        "images": len(files), "pixels": int(known.sum()), "pixels_ignored": int(joint[IGNORE].sum()),
        "classes": num_classes, "classes_annotated": int((total[2] > 0).sum()),
        "classes_predicted": int((total[1] > 0).sum()),
    }  # fmt: skip
    notes += doubts(known, list(prediction_values), names, np.flatnonzero(stored).tolist(), annotation_values is None)
    return Score("segmentation", "mmseg", metrics, numbers, tuple(notes))


def _check_arguments(num_classes: int, ignore_index: int, start: int) -> None:
    if not 1 <= num_classes <= MAX_CLASSES:
        raise TaskError(f"{num_classes} classes; a PNG label map can hold 1..{MAX_CLASSES}")
    if not 0 <= ignore_index <= 255:
        raise TaskError(f"ignore index {ignore_index} cannot be in an 8-bit label map; it must be 0..255")
    if start < 0 or start + num_classes > 256:
        raise TaskError(f"predictions of {num_classes} classes cannot start at {start} in an 8-bit label map")


def _table(values: Sequence[int], num_classes: int, what: str) -> np.ndarray:
    """int16 [256]: the class of each value of a file."""
    listed = list(values)
    if len(listed) != num_classes or len(set(listed)) != num_classes or not all(0 <= v <= 255 for v in listed):
        raise TaskError(
            f"{what} values {', '.join(map(str, listed[:9]))} must be {num_classes} different numbers of 0..255, "
            "one for each class"
        )
    table = np.full(256, NONE, np.int16)
    table[listed] = np.arange(num_classes)
    return table


def _mapped(values: np.ndarray, label_of: np.ndarray, ignore_index: int, path: Path) -> np.ndarray:
    """uint8 classes and 255. A value that is given to a class is never ignored."""
    table = label_of.copy()
    if table[ignore_index] == NONE:
        table[ignore_index] = IGNORE
    if len(bad := np.setdiff1d(values, np.flatnonzero(table != NONE))):
        listed = ", ".join(map(str, np.flatnonzero(label_of != NONE)[:9]))
        raise Wrong(f"label {bad[0]} is none of the annotation values {listed}", path=path)
    return table[values].astype(np.uint8)


def _check_prediction(counts: Tensor, class_of: np.ndarray, num_classes: int, path: Path) -> None:
    """Where the annotation is ignored, a prediction may hold anything."""
    there = np.flatnonzero(counts[:num_classes].sum(0).numpy())
    bad = there[class_of[there] == NONE]
    if not len(bad):
        return
    known = np.flatnonzero(class_of != NONE)
    low, high = int(known[0]), int(known[-1])
    allowed = f"{low}..{high}" if high - low == num_classes - 1 else f"one of {', '.join(map(str, known[:9]))}"
    advice = ""
    if low == 0 and bad.max() == num_classes == bad.min():
        advice = "predictions that count from 1, as mmseg writes ADE20k's, need --predictions-start-at 1"
    elif low == 1 and set(bad) == {0}:
        advice = "predictions that count from 0 need --predictions-start-at 0"
    elif set(there) <= {0, 255} and num_classes == 2:
        advice = "masks of 0 and 255 need --prediction-values 0,255"
    raise Wrong(f"prediction {bad[0]} is out of range; it must be {allowed}", path=path, advice=advice)
