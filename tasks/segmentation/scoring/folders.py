"""`score segmentation`: folders of PNG label maps, made anywhere, to mIoU, mAcc, aAcc and per-class IoU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tasks.contract import TaskError
from tasks.segmentation.labels import check_sizes, read_label_map, to_classes
from tasks.segmentation.scoring.confusion import IGNORE, MAX_CLASSES, class_scores, image_counts, scores


def _pngs(folder: str | Path, what: str) -> dict[str, Path]:
    folder = Path(folder)
    if not folder.is_dir():
        raise TaskError(f"no folder {folder} ({what})")
    found = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.png"))}
    if not found:
        raise TaskError(f"no PNG in {folder} ({what})")
    return found


def _prediction(path: Path, label: np.ndarray, num_classes: int) -> np.ndarray:
    values = read_label_map(path)
    check_sizes(label.shape, values.shape, "its annotation", path)
    counted = values[label != IGNORE]  # where the annotation is ignored, a prediction may hold anything
    if counted.size and counted.max() >= num_classes:
        hint = "; files that count from 1 must be shifted first" if counted.max() == num_classes else ""
        raise TaskError(f"prediction {counted.max()} in {path} is out of range; it must be 0..{num_classes - 1}{hint}")
    return values


def score_folder(
    predictions: str | Path,
    annotations: str | Path,
    num_classes: int,
    reduce_zero_label: bool = False,
    ignore_index: int = IGNORE,
    class_names: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Scores of the PNG label maps in `predictions` against those of the same names in `annotations`.

    Predictions hold classes 0..N-1, also with `reduce_zero_label`, which concerns annotations only (0 is ignored, k
    means class k-1), as in mmseg's metric. Returns fractions: `mIoU mAcc aAcc`, `IoU` by class name (classes that
    occur nowhere are left out), and the number of `images`.

    Raises: TaskError for missing or unmatched files, sizes that differ, values out of range (which file, which value).

    Example: `score_folder("out", "ADEChallengeData2016/annotations/validation", 150, reduce_zero_label=True)["mIoU"]`
    """
    if not 1 <= num_classes <= MAX_CLASSES:
        raise TaskError(f"{num_classes} classes; a PNG label map can hold 1..{MAX_CLASSES}")
    if not 0 <= ignore_index <= 255:
        raise TaskError(f"ignore index {ignore_index} cannot be in an 8-bit label map; it must be 0..255")
    names = list(class_names) if class_names is not None else [str(c) for c in range(num_classes)]
    if len(names) != num_classes:
        raise TaskError(f"{len(names)} class names for {num_classes} classes")
    predicted, annotated = _pngs(predictions, "predictions"), _pngs(annotations, "annotations")
    for have, want, where in ((predicted, annotated, predictions), (annotated, predicted, annotations)):
        missing = sorted(want.keys() - have.keys())
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise TaskError(f"no {missing[0]}.png{more} in {where}; predictions and annotations pair by name")
    total = torch.zeros(3, num_classes, dtype=torch.int64)
    for name, path in annotated.items():
        label = to_classes(read_label_map(path), num_classes, ignore_index, reduce_zero_label, path)
        prediction = _prediction(predicted[name], label, num_classes)
        total += image_counts(torch.from_numpy(prediction), torch.from_numpy(label), num_classes)
    if not total[2].any():
        raise TaskError(f"no labelled pixel in {annotations}: all are ignored")
    return {**scores(total), "IoU": class_scores(total, names), "images": len(annotated)}
