"""LVIS box AP of detections made anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tasks.detection.labels.annotations import read_json, read_truth
from tasks.detection.scoring.lvis_scorer import score_fast
from tasks.detection.scoring.results import Detections, check_results, read_results


def score(
    results: str | Path | Detections | Iterable[Mapping[str, Any]],
    annotations: str | Path | Mapping[str, Any],
    official: bool = False,
) -> dict[str, float | None]:
    """AP AP50 AP75 APs APm APl APr APc APf AR as fractions (None: no category has such a box).

    Args: results: LVIS results format (dicts or a JSON file) or columns. annotations: LVIS or COCO labels.
        official: use the `lvis` package instead of the vectorised scorer; same numbers.
    Raises: TaskError for unknown image or category ids, boxes outside their image, empty annotations, broken files.

    Example: `score("results.json", "lvis_v1_val.json")["AP"]`
    """
    data = annotations if isinstance(annotations, Mapping) else read_json(annotations)
    truth, found = read_truth(data), read_results(results)
    if not official:
        return score_fast(found, truth)
    from tasks.detection.scoring.official import score_official

    check_results(found, truth)
    return score_official(found, data)
