"""What makes a segmentation score doubtful: said beside the numbers, because the files alone cannot decide it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SHOWN = 8  # names of classes in a sentence


def doubts(known: Tensor, values: Sequence[int], names: Sequence[str], stored: Sequence[int], plain: bool) -> list[str]:
    """Sentences, one for each doubt.

    Args:
        known: int64 [C, 256], pixels by their class and the value that was predicted. values: that of each class in
            predictions. names: of the classes. stored: the values that annotations hold in their files.
        plain: values of annotations are classes, no map was given.
    """
    found = []
    matrix = known[:, list(values)]
    labelled, predicted = matrix.sum(1), matrix.sum(0)
    if plain and list(stored) == [0, 255] and len(names) >= 2:
        found.append(
            "annotations hold 0 and 255 alone, and 255 is ignored: where it is a class, say --annotation-values 0,255"
        )
    absent = [name for name, count in zip(names, labelled.tolist(), strict=True) if not count]
    if absent:
        more = f" and {len(absent) - SHOWN} more" if len(absent) > SHOWN else ""
        found.append(
            f"{len(absent)} of {len(names)} classes occur in no annotation ({', '.join(absent[:SHOWN])}{more}): they "
            "count with IoU 0 where they are predicted, and not at all where they are not"
        )
    if not ((labelled > 0) & (predicted > 0)).any():
        there = torch.nonzero(known.sum(0))[:, 0].tolist()
        found.append(
            f"no class that is predicted occurs in the annotations: predictions hold {_span(there)}, "
            f"annotations {_span(list(stored))}"
        )
    agree, pixels = int(matrix.diagonal().sum()), int(matrix.sum())
    for step in (1, -1):
        moved = [v + step for v in values]
        inside = [c for c, v in enumerate(moved) if 0 <= v <= 255]
        other = int(known[inside, [moved[c] for c in inside]].sum())
        if other > max(2 * agree, 0.1 * pixels):
            how = "" if list(values) != list(range(len(values))) or step < 0 else ": say --predictions-start-at 1"
            found.append(
                f"predictions agree with annotations at {agree / pixels:.1%} of the pixels, and at "
                f"{other / pixels:.1%} if class 0 is {moved[0]} in them instead of {values[0]}{how}"
            )
    return found


def _span(values: Sequence[int]) -> str:
    return f"{min(values)}..{max(values)}" if len(values) > SHOWN else ", ".join(map(str, values))
