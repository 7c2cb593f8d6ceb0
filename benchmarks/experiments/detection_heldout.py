"""Are combinations found that training never showed? Drawn scenes: red and rings were seen, no red ring.

OMP_NUM_THREADS=1 python -m benchmarks.experiments.detection_heldout
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import tempfile
from typing import Any

import numpy as np

from benchmarks.cli.errors import run_script
from benchmarks.engine.sweep import SweepResult
from benchmarks.experiments.detection_overfit import before_and_after, parser
from tasks.detection.adapter import Detection
from tasks.detection.labels.annotations import Truth
from tasks.detection.scoring.average_precision import accumulate
from tasks.detection.scoring.matching import judge
from tasks.detection.scoring.results import Detections


def crossed(found: Detections, truth: Truth, targets: np.ndarray) -> np.ndarray:
    """AP50 [K, T] of what query k found, scored as if it had been asked for category `targets[t]` (places).

    Only the names are exchanged: boxes and scores stay. Entry [targets[t], t] is the category's own AP50.
    """
    table = np.zeros((len(truth.category_ids), len(targets)))
    for k, category in enumerate(truth.category_ids):
        own = found.cut(np.flatnonzero(found.category_id == category))
        copies = [dataclasses.replace(own, category_id=np.full(len(own), truth.category_ids[t])) for t in targets]
        fields = [f.name for f in dataclasses.fields(Detections)]
        named = Detections(*(np.concatenate([getattr(c, f) for c in copies]) for f in fields))
        # the limit of an image was met by the detector; copies are no further detections
        precision, _ = accumulate(judge(named, truth, limit=max(1, len(named))), truth)
        table[k] = precision[0, :, targets, 0].mean(1)
    return table


def against_chance(table: np.ndarray, names: tuple[str, ...], targets: np.ndarray) -> dict[str, Any]:
    """AP50 of held-out categories by their own queries, and by other queries of the same model.

    `permuted`: mean over all permutations of the held-out names (chance of a detector of things that cannot read);
    `same_colour`, `same_shape`: mean over the queries that differ in one word, all of them trained on (a detector that
    reads one word only gets as much); `as_good`: share of the permutations that score no worse than the right names.

    Args: table [K, T] of `crossed`; names of all categories, `colour_shape`; targets [T] places.
    """
    square = table[targets]
    order = np.arange(len(targets))
    permuted = [float(square[list(p), order].mean()) for p in itertools.permutations(order)]
    own = float(np.diag(square).mean())
    words = [name.split("_") for name in names]
    found: dict[str, Any] = {"own": own, "permuted": float(np.mean(permuted)), "permuted_best": max(permuted)}
    found["as_good"] = float(np.mean([p >= own - 1e-12 for p in permuted]))
    for place, what in enumerate(("same_colour", "same_shape")):
        others = [
            [k for k in range(len(names)) if k != t and words[k][place] == words[t][place]] for t in targets.tolist()
        ]
        found[what] = float(np.mean([table[k, i].mean() for i, k in enumerate(others)]))
    found["each"] = {names[t]: round(float(square[i, i]), 3) for i, t in enumerate(targets.tolist())}
    return found


def looked_at(task: Detection, seen: SweepResult) -> dict[str, Any]:
    """The comparison on val, and AP50 of the categories that were trained on."""
    _, numbers, records = seen.rows[0]
    truth = task.truth("val")
    found = task.meter("val").detections(records)
    held_out, counts = np.flatnonzero(truth.frequency == "r"), np.bincount(truth.category)
    table = crossed(found, truth, held_out)
    trained = [k for k in range(len(truth.names)) if k not in set(held_out) and k < len(counts) and counts[k]]
    precision, _ = accumulate(judge(found, truth), truth)
    out = {"AP50_trained": float(precision[0][:, trained, 0].mean()), "AP": numbers["AP"], "APr": numbers["APr"]}
    return {**out, "held_out_boxes": int(counts[held_out].sum()), **against_chance(table, truth.names, held_out)}


def main() -> None:
    recipe = parser("detection_heldout", __doc__, steps=2000, augment=True).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = before_and_after(folder, {"data": "scenes"}, recipe, looked_at)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    run_script(main)
