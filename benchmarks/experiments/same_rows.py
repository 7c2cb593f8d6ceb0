"""Are two runs of the same cells the same in every digit? The proof of a change that should not move numbers.

python -m benchmarks.experiments.same_rows results/runs/before results/runs/after
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cli.errors import run_script
from benchmarks.report.answers.questions import newest
from benchmarks.store import Row, Store

Place = tuple[str, ...]


def place_of(row: Row, coarse: bool = False) -> Place:
    """What a row is of, whatever its keys are: protocols and keys may change, the question stays.

    Args: coarse: without options, of which the table of a report knows the data set alone.
    """
    usual = "pi" if row.resize is None else row.resize
    named = (row.task, row.options.get("data", ""), row.split, row.backbone, row.train_grid, row.eval_grid, usual,
             row.seed)  # fmt: skip
    more: Sequence[Any] = () if coarse else (row.options, row.backbone_options, row.view_options, row.limit)
    return (*map(str, named), *(json.dumps(dict(m) if isinstance(m, dict) else m, sort_keys=True) for m in more))


def differences(before: Row, after: Row) -> list[str]:
    """Each number that is not the same: metrics, points of the loss; then whether all samples are.

    Example: `differences(row, row.changed(metrics={"top1": 0.5}))` is `["top1 0.4 -> 0.5"]`
    """
    found = []
    for name in dict.fromkeys([*before.metrics, *after.metrics]):
        old, new = before.metrics.get(name), after.metrics.get(name)
        if old != new:
            found.append(f"{name} {old} -> {new}")
    old_losses, new_losses = before.training.get("losses"), after.training.get("losses")
    if old_losses and new_losses and old_losses != new_losses:
        pairs = zip(old_losses, new_losses, strict=False)
        first = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(old_losses), len(new_losses)))
        found.append(f"losses, from point {first} of {len(old_losses)} on")
    if before.samples_hash and after.samples_hash and before.samples_hash != after.samples_hash and not found:
        found.append("per-sample values")
    return found


def compared(before: Sequence[Row], after: Sequence[Row]) -> tuple[list[str], int]:
    """A line for each place that is not the same in both, and how many are."""
    coarse = not all(row.recipe for row in (*before, *after))
    old, new = ({place_of(r, coarse): r for r in newest(rows)} for rows in (before, after))
    lines, equal = [], 0
    for place in dict.fromkeys([*old, *new]):
        name = " ".join(part for part in place[:8] if part)
        if place not in old or place not in new:
            lines.append(f"only {'before' if place in old else 'after'}: {name}")
        elif found := differences(old[place], new[place]):
            lines.append(f"{name}: {', '.join(found)}")
        else:
            equal += 1
    return lines, equal


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="folder of a run, or of its report's rows.csv")
    parser.add_argument("after", type=Path)
    asked = parser.parse_args(arguments)
    folders = [Store(asked.before), Store(asked.after)]
    rows = [store.rows() for store in folders]
    for store, own in zip(folders, rows, strict=True):
        if not own:
            print(f"no rows in {store.path}", file=sys.stderr)
            return 2
    lines, equal = compared(*rows)
    print("\n".join([*lines, f"{equal} rows equal in every digit, {len(lines)} not"]))
    return 1 if lines else 0


if __name__ == "__main__":
    run_script(main)
