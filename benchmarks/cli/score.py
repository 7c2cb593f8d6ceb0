"""The verb `score`: metrics of predictions made anywhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from tasks.contract.score import Score
from tasks.detection.labels.protocols import Protocol

score = typer.Typer(
    help="Score predictions made anywhere. Prints JSON of one form: task, protocol, metrics, counts.",
    no_args_is_help=True,
)


def _print(found: Score) -> None:
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    print(json.dumps(found.as_json(), indent=1))


@score.command()
def detection(
    predictions: Annotated[Path, typer.Option(help="JSON list of {image_id, category_id, bbox, score}.")],
    annotations: Annotated[Path, typer.Option(help="LVIS or COCO labels, JSON.")],
    protocol: Annotated[
        Protocol | None,
        typer.Option(
            help="Whose rules. Default: LVIS' where an image has neg_category_ids or not_exhaustive_category_ids, or "
            "a category a frequency; else COCO's."
        ),
    ] = None,
    official: Annotated[bool, typer.Option("--official", help="By the lvis or pycocotools package itself.")] = False,
) -> None:
    """AP AP50 AP75 APs APm APl AR of boxes; LVIS: APr APc APf; COCO: ARs ARm ARl AR@1 AR@10. null: no such box.

    Example: run_all.py score detection --predictions found.json --annotations instances_val2017.json
    """
    from tasks.detection.scoring.files import score_detections

    _print(score_detections(predictions, annotations, official, protocol))


@score.command()
def classification(records: Annotated[Path, typer.Argument(help="samples/*.npz of a row.")]) -> None:
    """top1, top5 and their bootstrap intervals of a per-sample file."""
    from tasks.classification.scoring import score_file

    print(json.dumps(score_file(records), indent=1))


@score.command()
def segmentation(
    predictions: Annotated[Path, typer.Option(help="Folder of PNG label maps.")],
    annotations: Annotated[Path, typer.Option(help="Folder of PNG label maps of the same names.")],
    num_classes: Annotated[int, typer.Option(min=1)],
    reduce_zero_label: Annotated[bool, typer.Option(help="Label 0 is ignored, 1 becomes 0 (ADE20k).")] = False,
    ignore_index: Annotated[int, typer.Option()] = 255,
) -> None:
    """mIoU, mAcc, aAcc and per-class IoU of label maps."""
    from tasks.segmentation.scoring.folders import score_folder

    print(json.dumps(score_folder(predictions, annotations, num_classes, reduce_zero_label, ignore_index), indent=1))


@score.command()
def retrieval(
    image_embeddings: Annotated[Path, typer.Option(help=".npy [images, D]")],
    text_embeddings: Annotated[Path, typer.Option(help=".npy [captions, D]")],
    pairs: Annotated[Path, typer.Option(help="JSON: caption index -> image index.")],
) -> None:
    """Recall@1/5/10, median and mean rank in both directions."""
    from tasks.retrieval.scoring import score_embeddings

    print(json.dumps(score_embeddings(image_embeddings, text_embeddings, pairs), indent=1))
