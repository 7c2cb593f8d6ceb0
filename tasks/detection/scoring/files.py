"""`score detection`: box AP of detections made anywhere, by the rules of LVIS or COCO."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tasks.contract.score import Score
from tasks.data.boxes.protocols import Protocol, recognised
from tasks.data.boxes.unusual import unusual_boxes
from tasks.detection.labels.annotations import Truth, read_labels, read_truth
from tasks.detection.scoring.average_precision import box_scores
from tasks.detection.scoring.matching import judge
from tasks.detection.scoring.official import score_official
from tasks.detection.scoring.results import Detections, check_results, read_results

Results = str | Path | Detections | Iterable[Mapping[str, Any]]


def score(
    results: Results,
    annotations: str | Path | Mapping[str, Any],
    official: bool = False,
    protocol: Protocol | str | None = None,
) -> dict[str, float | None]:
    """The metrics of `score_detections` alone.

    Example: `score("results.json", "lvis_v1_val.json")["AP"]`
    """
    return dict(score_detections(results, annotations, official, protocol).metrics)


def score_detections(
    results: Results,
    annotations: str | Path | Mapping[str, Any],
    official: bool = False,
    protocol: Protocol | str | None = None,
) -> Score:
    """Box AP as fractions (see `box_scores`); None where no category has a box of that kind.

    Args:
        results: list of {image_id, category_id, bbox, score}, the format of LVIS and COCO: dicts, a JSON file, columns.
        annotations: LVIS or COCO labels. official: by the `lvis` or `pycocotools` package itself; same numbers.
        protocol: lvis or coco; None: that of the labels (see `recognised`).
    Raises: Missing and Wrong for files that are not there, torn or of another form, values that the schema forbids,
        unknown ids: file, place and field.

    Example: `score_detections("results.json", "instances_val2017.json").protocol` is "coco"
    """
    data = annotations if isinstance(annotations, Mapping) else read_labels(annotations)
    rules = None if protocol is None else Protocol(protocol)
    truth = read_truth(data, rules, None if isinstance(annotations, Mapping) else annotations)
    found = read_results(results)
    image, _ = check_results(found, truth, results if isinstance(results, str | Path) else None)
    judged = judge(found, truth)
    metrics = score_official(found, data, truth.protocol) if official else box_scores(judged, truth)
    counts = {"images": len(truth.image_ids), "categories": len(truth.category_ids), **truth.counts}
    counts |= {"detections": len(found), "detections_scored": len(judged.score)}
    counts |= {f"detections_{kind}": n for kind, n in unusual_boxes(found.box, truth.sizes[image]).items()}
    own = recognised(data["images"], data["categories"])
    return Score("detection", truth.protocol.value, metrics, counts, tuple(_notes(truth, own, data, official)))


def _notes(truth: Truth, own: Protocol, data: Mapping[str, Any], official: bool) -> Iterable[str]:
    if truth.protocol != own:
        yield f"labels of {own.value.upper()}'s form are scored by the rules of {truth.protocol.value.upper()}"
    elif own == Protocol.coco and not any("iscrowd" in one for one in data["annotations"]):
        yield "the labels have fields of neither LVIS nor COCO: scored by COCO's rules (--protocol lvis for the others)"
    if number := truth.counts["annotations_area_from_box"]:
        yield f"{number} annotations have no area: that of their box is taken, which is larger than that of a mask"
    if own == truth.protocol == Protocol.lvis and (number := truth.counts["annotations_crowd"]):
        yield f"{number} annotations are crowds, which LVIS does not have: scored as boxes, as `lvis` does"
    if official and any(one["id"] == 0 and one["id"] is not False for one in data["annotations"]):
        package = {Protocol.lvis: "lvis", Protocol.coco: "pycocotools"}[truth.protocol]
        yield (
            f"an annotation has id 0, and `{package}` takes a match with it for none (a fault of its own): "
            "without --official the number is right"
        )
