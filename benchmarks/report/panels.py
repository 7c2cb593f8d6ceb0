"""Predicted label maps of a segmentation run without its pictures: a sheet that may be kept where the data may not.

python -m benchmarks.report.panels results/runs/mini_segmentation OUT.png --data camvid11 --data-root DATA
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from benchmarks.cli.errors import run_script
from benchmarks.engine.reopen import find_row, reopen
from benchmarks.store import Store
from tasks.contract import View

HIDDEN = 2  # columns of a panel that are somebody's: the picture and its truth
LINE = 16  # pixels


def sheet(store: Store, data: str, data_root: Path, train: str, grids: Sequence[int]) -> Image.Image:
    """A row for each backbone, trained at `train`, of two pictures' predicted labels at each grid.

    Raises: TaskError where the folder has no such rows, or not their weights.

    Example: `sheet(Store("results/runs/mini_segmentation"), "camvid11", Path("data"), "8", [8, 16]).save("maps.png")`
    """
    rows = [r for r in store.rows() if r["status"] == "ok" and r["task"] == "segmentation"]
    names = list(dict.fromkeys(r["backbone"] for r in rows if r["options"].get("data") == data))
    lines = []
    for name in names or ["*"]:
        wanted = {"task": "segmentation", "data": data, "train_grid": train, "backbone": name}
        row = find_row(store, wanted)
        task, model = reopen(store, row, data_root)
        views = {View(g): {} for g in grids}
        for _, panel in task.pictures(model, row["split"], views, "cpu")[:2]:
            width = panel.width // (HIDDEN + len(grids))
            maps = panel.crop((HIDDEN * width, 0, panel.width, panel.height))
            line = Image.new("RGB", (maps.width, maps.height + LINE), "white")
            ImageDraw.Draw(line).text((2, 2), f"{name}, trained at {train}", fill="black")
            line.paste(maps, (0, LINE))
            lines.append(line)
    whole = Image.new("RGB", (max(x.width for x in lines), sum(x.height for x in lines)), "white")
    top = 0
    for line in lines:
        whole.paste(line, (0, top))
        top += line.height
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report.panels", description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--train", default="8", help="training grid of the rows")
    parser.add_argument("--grids", default="8,12,16,20,30")
    options = parser.parse_args()
    grids = [int(g) for g in options.grids.split(",")]
    sheet(Store(options.run), options.data, options.data_root, options.train, grids).save(options.out)


if __name__ == "__main__":
    run_script(main)
