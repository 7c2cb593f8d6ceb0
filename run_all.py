"""The front door: list what there is, score predictions made anywhere.

python run_all.py ls backbones --json
python run_all.py score segmentation --predictions DIR --annotations DIR --num-classes 150 --reduce-zero-label
python run_all.py score retrieval --image-embeddings A.npy --text-embeddings B.npy --pairs P.json
"""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(help=__doc__.splitlines()[0], no_args_is_help=True, add_completion=False)
score = typer.Typer(help="Score predictions made anywhere; JSON on standard output.", no_args_is_help=True)
app.add_typer(score, name="score")


class Listing(StrEnum):
    backbones = "backbones"
    tasks = "tasks"


AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]


@app.callback()
def verbs() -> None:
    """Does one flexible ViT replace my fixed ones, on my task, at my budget?"""


@app.command(name="ls")
def list_(
    what: Listing,
    pattern: Annotated[str, typer.Argument(help="Wildcard; `timm:*dinov2*` lists timm's ViTs.")] = "*",
    as_json: AsJson = False,
) -> None:
    """List backbones or tasks.  Example: run_all.py ls backbones 'flexivit_b*'"""
    rows = _backbones(pattern) if what is Listing.backbones else _tasks(pattern)
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    if not rows:
        raise ValueError(f"no {what.value} match {pattern!r}; try: run_all.py ls {what.value}")
    columns = list(rows[0])
    widths = [max(len(str(r[c] or "-")) for r in [*rows, dict(zip(columns, columns, strict=True))]) for c in columns]
    for row in [dict(zip(columns, columns, strict=True)), *rows]:
        print("  ".join(str(row[c] or "-").ljust(w) for c, w in zip(columns, widths, strict=True)).rstrip())


def _backbones(pattern: str) -> list[dict[str, Any]]:
    from backbones import backbone_spec, list_backbones

    specs = [backbone_spec(name) for name in list_backbones(pattern)]
    keys = ("name", "image_size", "native_grid", "trained_on", "weights", "licence")
    return [{k: getattr(s, k) for k in keys} for s in specs]


def _tasks(pattern: str) -> list[dict[str, Any]]:
    from tasks import list_tasks, task_class

    return [{"name": n, "class": f"{task_class(n).__module__}:{task_class(n).__name__}"} for n in list_tasks(pattern)]


@score.command()
def segmentation(
    predictions: Annotated[Path, typer.Option(help="Folder of PNG label maps.")],
    annotations: Annotated[Path, typer.Option(help="Folder of PNG label maps of the same names.")],
    num_classes: Annotated[int, typer.Option(min=1)],
    reduce_zero_label: Annotated[bool, typer.Option(help="Label 0 is ignored, 1 becomes 0 (ADE20k).")] = False,
    ignore_index: Annotated[int, typer.Option()] = 255,
) -> None:
    """mIoU, mAcc, aAcc and per-class IoU of label maps."""
    from tasks.segmentation.scoring import score_folder

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


@score.command()
def detection(
    predictions: Annotated[Path, typer.Option(help="JSON in LVIS results format.")],
    annotations: Annotated[Path, typer.Option(help="LVIS or COCO labels, JSON.")],
    official: Annotated[bool, typer.Option("--official", help="Use the lvis package itself.")] = False,
) -> None:
    """AP AP50 AP75 APs APm APl APr APc APf AR of boxes; null where no category has such a box."""
    from tasks.detection.scoring import score as score_boxes

    print(json.dumps(score_boxes(predictions, annotations, official), indent=1))


def main() -> None:
    """Run a verb; what a user can mend is one line on standard error and exit status 2."""
    try:
        app()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
