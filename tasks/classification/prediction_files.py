"""`score classification`: accuracy of labels that any model predicted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from tasks.classification.scoring import TOP, right
from tasks.contract.meters import mean_interval
from tasks.contract.score import Score
from tasks.data.arrays import array_names, read_array, read_arrays, shape_of
from tasks.data.errors import Wrong

Place = tuple[str | Path, str]  # file, and name of the array in it ("" for a .npy)


def score_classification(predictions: str | Path, labels: str | Path | None = None) -> Score:
    """`top1` and `top5` with their 95 % intervals (`_low`, `_high`): those of the report, a jackknife over pictures.

    `top5` is None where fewer than five classes are ranked and there are more classes than that.

    Args:
        predictions: .npz of a row (`samples/*.npz`) or of your own: `ranked` int [N, k], classes with the best first,
            or `logits` float [N, C]; and `label`. Or a .npy of either, with `labels`.
        labels: .npy int [N], or [N, L] where a picture has several that are right; -1 is none.
    Raises: Missing and Wrong naming file, array and row.

    Example: `score_classification("logits.npy", "labels.npy").metrics["top1"]`
    """
    names = ("ranked", "logits", "label", "ids") if Path(predictions).suffix == ".npz" else ()
    arrays = _chosen(predictions, names) if names else {}
    notes = []
    if labels is not None:
        label, label_place = read_array(labels), (labels, "")
        if "label" in arrays:
            notes.append(f"labels are those of {labels}, not those in {predictions}")
    elif "label" in arrays:
        label, label_place = arrays["label"], (predictions, "label")
    else:
        raise Wrong("has no labels", path=predictions, advice="say --labels FILE.npy, or put them in an array 'label'")
    label = _labels(label, label_place)
    if names:
        name = "ranked" if "ranked" in arrays else "logits"
        values, place = arrays[name], (predictions, name)
    else:
        values, place = read_array(predictions), (predictions, "")
        name = "logits" if values.dtype.kind == "f" else "ranked"
    _same_length(len(values) if values.ndim else 0, place, len(label), label_place)
    ranked, classes = _from_logits(values, place) if name == "logits" else (_ranks(values, place), None)
    if classes is not None and label.max() >= classes:
        row = int((label >= classes).any(1).argmax())
        low = label[label >= 0].min()
        advice = "do they count from 1?" if low == 1 and label.max() == classes else ""
        raise _wrong(label_place, row, f"{label[row].max()} is no class of {classes} logits, 0..{classes - 1}", advice)
    if "ids" in arrays:
        _check_ids(arrays["ids"], len(label), predictions)
    records = {"ranked": torch.from_numpy(ranked), "label": torch.from_numpy(label)}
    found = right(records)
    if not len(found["top1"]):
        raise Wrong("no picture has a label: all are -1", path=label_place[0], field=label_place[1])
    known = classes or int(max(ranked.max(), label.max())) + 1
    metrics: dict[str, float | None] = {}
    labelled = (label >= 0).any(1)
    for metric, values in found.items():
        if metric == "top5" and ranked.shape[1] < min(TOP, known):
            metrics |= {"top5": None, "top5_low": None, "top5_high": None}
            notes.append(f"{ranked.shape[1]} classes are ranked, so top5 is not known")
            continue
        hits = np.zeros(len(label))
        hits[labelled] = values.numpy()
        low, high = mean_interval(hits, labelled) or (None, None)
        metrics |= {metric: float(values.double().mean()), f"{metric}_low": low, f"{metric}_high": high}
    notes += _doubts(records, float(found["top1"].double().mean()))
    counts = {"images": len(found["top1"]), "images_without_label": len(label) - len(found["top1"]), "classes": known}
    return Score("classification", "top-k", metrics, counts, tuple(notes))


def _chosen(path: str | Path, names: tuple[str, ...]) -> Mapping[str, np.ndarray]:
    arrays = read_arrays(path, names)
    if ("ranked" in arrays) == ("logits" in arrays):
        there = ", ".join(array_names(path)) or "nothing"
        raise Wrong(f"must have one of the arrays ranked and logits; it has: {there}", path=path)
    return arrays


def _wrong(place: Place, row: int, reason: str, advice: str = "") -> Wrong:
    return Wrong(reason, path=place[0], place=f"row {row}", field=place[1], advice=advice)


def _same_length(rows: int, place: Place, labels: int, label_place: Place) -> None:
    if rows != labels:
        other = label_place[1] or label_place[0]
        raise Wrong(f"has {rows} rows, {other} has {labels}", path=place[0], field=place[1])


def _labels(values: np.ndarray, place: Place) -> np.ndarray:
    """int64 [N, L]"""
    if values.ndim not in (1, 2) or not values.size:
        raise Wrong(f"must be [N] or [N, L] labels, not {shape_of(values)}", path=place[0], field=place[1])
    if values.dtype.kind == "f":
        raise Wrong("holds floats, labels must be integers", path=place[0], field=place[1])
    found = values.reshape(len(values), -1)
    if len(bad := np.argwhere((found < -1) | (found > np.iinfo(np.int32).max))):
        raise _wrong(place, int(bad[0, 0]), f"{found[tuple(bad[0])]} is no label: they are 0 and above, -1 for none")
    return found.astype(np.int64)


def _ranks(values: np.ndarray, place: Place) -> np.ndarray:
    """int64 [N, k <= 5]"""
    if values.dtype.kind == "f":
        raise Wrong("holds floats, ranked classes are integers", path=place[0], field=place[1], advice=_LOGITS)
    if values.ndim != 2 or not values.size:
        reason = f"must be [N, k] classes, those of a picture in a row, the best first; it is {shape_of(values)}"
        raise Wrong(reason, path=place[0], field=place[1])
    if len(bad := np.argwhere((values < 0) | (values > np.iinfo(np.int32).max))):
        raise _wrong(place, int(bad[0, 0]), f"{values[tuple(bad[0])]} is no class", _LOGITS)
    ordered = np.sort(values, axis=1)
    if len(bad := np.argwhere(ordered[:, 1:] == ordered[:, :-1])):
        row, column = bad[0]
        raise _wrong(place, int(row), f"class {ordered[row, column]} is ranked twice", _LOGITS)
    return values[:, :TOP].astype(np.int64)


_LOGITS = "logits go into a float array, named logits in a .npz"


def _from_logits(values: np.ndarray, place: Place) -> tuple[np.ndarray, int]:
    """int64 [N, k <= 5], the first class among equals, and the number of classes."""
    if values.ndim != 2 or values.shape[1] < 2:
        reason = f"must be [N, C] logits of at least two classes, not {shape_of(values)}"
        raise Wrong(reason, path=place[0], field=place[1])
    if values.dtype.kind != "f":
        raise Wrong("holds integers, logits are floats", path=place[0], field=place[1])
    if not (finite := np.isfinite(values).all(1)).all():
        row = int(finite.argmin())
        raise _wrong(place, row, f"{values[row][~np.isfinite(values[row])][0]} is no finite logit")
    return np.argsort(-values, axis=1, kind="stable")[:, :TOP].copy(), values.shape[1]


def _check_ids(ids: np.ndarray, rows: int, path: str | Path) -> None:
    if ids.ndim != 1 or len(ids) != rows:
        raise Wrong(f"must be [{rows}], one id for each row, not {shape_of(ids)}", path=path, field="ids")
    ordered = np.sort(ids)
    if len(twice := np.flatnonzero(ordered[1:] == ordered[:-1])):
        raise Wrong(f"{ordered[twice[0]]} occurs twice", path=path, field="ids")


def _doubts(records: Mapping[str, torch.Tensor], top1: float) -> list[str]:
    """Do labels and predictions count from different numbers?"""
    notes = []
    for step, one, zero in ((-1, "labels", "predictions"), (1, "predictions", "labels")):
        label = torch.where(records["label"] >= 0, records["label"] + step, -1)
        moved = right({"ranked": records["ranked"], "label": label})["top1"]
        share = float(moved.double().mean()) if len(moved) else 0.0
        if share > max(2 * top1, 0.1):
            notes.append(f"top1 is {top1:.1%}, and would be {share:.1%} if {one} count from 1 and {zero} from 0")
    return notes
