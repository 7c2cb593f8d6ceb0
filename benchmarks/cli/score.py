"""The verb `score`: metrics of predictions made anywhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tasks.contract.score import Score

score = typer.Typer(
    help="Score predictions made anywhere. Prints JSON of one form: task, protocol, metrics, counts.",
    no_args_is_help=True,
)


def _print(found: Score) -> None:
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    print(json.dumps(found.as_json(), indent=1))


def _integers(text: str, option: str) -> list[int] | None:
    """`"0,255"` to `[0, 255]`; None for an empty text."""
    try:
        return [int(part) for part in text.split(",")] if text else None
    except ValueError:
        raise ValueError(f"{option} {text!r} must be integers separated by commas, such as 0,255") from None


def _protocol(text: str) -> Any:
    """A `Protocol` by its name; read here, because `--help` must not wait for numpy."""
    from tasks.data.boxes.protocols import Protocol

    if text not in list(Protocol):
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(map(repr, map(str, Protocol)))}")
    return Protocol(text)


@score.command()
def detection(
    predictions: Annotated[Path, typer.Option(help="JSON list of {image_id, category_id, bbox, score}.")],
    annotations: Annotated[Path, typer.Option(help="LVIS or COCO labels, JSON.")],
    protocol: Annotated[
        Any,
        typer.Option(
            parser=_protocol,
            metavar="lvis|coco",
            help="Whose rules. Default: LVIS' where an image has neg_category_ids or not_exhaustive_category_ids, or "
            "a category a frequency; else COCO's.",
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
def segmentation(
    predictions: Annotated[Path, typer.Option(help="Folder of PNG label maps.")],
    annotations: Annotated[Path, typer.Option(help="Folder of PNG label maps of the same names.")],
    num_classes: Annotated[int, typer.Option(min=1)],
    reduce_zero_label: Annotated[
        bool, typer.Option(help="In annotations 0 is ignored and 1 is class 0 (ADE20k).")
    ] = False,
    ignore_index: Annotated[int, typer.Option(help="The value of annotations that does not count.")] = 255,
    predictions_start_at: Annotated[
        int, typer.Option(min=0, help="The value of class 0 in predictions; 1 as mmseg writes ADE20k's.")
    ] = 0,
    prediction_values: Annotated[str, typer.Option(help="The value of each class in predictions, as 0,255.")] = "",
    annotation_values: Annotated[str, typer.Option(help="The value of each class in annotations, as 0,255.")] = "",
    prediction_suffix: Annotated[
        str | None,
        typer.Option(help="How predictions' names end; default .png, or _leftImg8bit.png if all do."),
    ] = None,
    annotation_suffix: Annotated[
        str | None, typer.Option(help="How annotations' names end; default .png, or _gtFine_labelTrainIds.png.")
    ] = None,
) -> None:
    """mIoU, mAcc, aAcc and per-class IoU of label maps.

    Example: run_all.py score segmentation --predictions out --annotations annotations/validation --num-classes 150
    --reduce-zero-label
    """
    from tasks.segmentation.scoring.folders import score_segmentation

    _print(
        score_segmentation(
            predictions, annotations, num_classes, reduce_zero_label=reduce_zero_label, ignore_index=ignore_index,
            predictions_start_at=predictions_start_at, prediction_suffix=prediction_suffix,
            annotation_suffix=annotation_suffix,
            prediction_values=_integers(prediction_values, "--prediction-values"),
            annotation_values=_integers(annotation_values, "--annotation-values"),
        )
    )  # fmt: skip


@score.command()
def classification(
    predictions: Annotated[
        Path,
        typer.Argument(
            help="samples/*.npz of a row, or a .npz with ranked [N, k] or logits [N, C] and label; or a .npy of one."
        ),
    ],
    labels: Annotated[
        Path | None, typer.Option(help=".npy of [N] or [N, L] class indices, -1 for none; default: label of the .npz.")
    ] = None,
) -> None:
    """top1, top5 and their 95 % intervals.

    Example: run_all.py score classification logits.npy --labels labels.npy
    """
    from tasks.classification.prediction_files import score_classification

    _print(score_classification(predictions, labels))


@score.command()
def retrieval(
    image_embeddings: Annotated[Path, typer.Option(help=".npy [images, D]")],
    text_embeddings: Annotated[Path, typer.Option(help=".npy [captions, D]")],
    pairs: Annotated[Path, typer.Option(help="JSON: caption index -> image index, a list or an object.")],
    inner_product: Annotated[
        bool,
        typer.Option("--inner-product", help="Score by inner products of the embeddings as they are, not by cosine."),
    ] = False,
    ranks: Annotated[
        Path | None, typer.Option(help="Also write the rank of every query, i2t and t2i, to this .npz.")
    ] = None,
) -> None:
    """Recall@1/5/10, median and mean rank in both directions, by cosine.

    Example: run_all.py score retrieval --image-embeddings a.npy --text-embeddings b.npy --pairs p.json
    """
    import numpy as np

    from tasks.retrieval.scoring import rank_embeddings, scored

    found = rank_embeddings(image_embeddings, text_embeddings, pairs, inner_product)
    if ranks is not None:
        try:
            np.savez(ranks, i2t=found.i2t.numpy(), t2i=found.t2i.numpy())
        except OSError as error:
            raise ValueError(f"{ranks} cannot be written: {error.strerror or error}") from None
    _print(scored(found, inner_product))
