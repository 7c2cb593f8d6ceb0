"""Where pictures of one's own are read at another size than a backbone was made for, and nobody said so."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from backbones import backbone_spec
from benchmarks.engine.suite.cells import Suite, cell_task

SIZE = "image_size"  # the option by which a task squeezes whole pictures; crops of pixels have other names


def size_notes(suite: Suite, data_root: str | Path) -> list[str]:
    """A line for each folder of one's own whose pictures are read at a size that the suite does not name, where a
    backbone was made for another.

    Known sets have a protocol that says their size. What is not known of a backbone is passed over.

    Example: `size_notes(load_suite("mine.yaml"), "data")` is `["classification my/pictures/: read at 240 px, but
    flexivit_nano was made for 120: options: {image_size: 120}, or image_size: 240 to keep it so"]`
    """
    sizes: dict[tuple[str, str, int], dict[int, dict[str, None]]] = {}
    read: dict[str, int | None] = {}  # the size a task reads at, None where it is no matter
    for cell in suite.cells:
        asked = f"{cell.task} {sorted(cell.options.items(), key=str)}"
        if asked not in read:
            task = cell_task(cell, data_root)
            named = {f.name for f in dataclasses.fields(type(task).Options)}
            own = getattr(getattr(task, "data", None), "own", False)
            matters = own and SIZE in named and SIZE not in cell.options
            read[asked] = task.card.image_size if matters else None
        size = read[asked]
        if size is None:
            continue
        made_for = _side(cell.backbone)
        if made_for is not None and made_for != size:
            place = (cell.task, str(cell.options.get("data", "")), size)
            sizes.setdefault(place, {}).setdefault(made_for, {})[cell.backbone] = None
    return [
        f"{task} {data}: read at {size} px, but {', '.join(names)} {'was' if len(names) == 1 else 'were'} made for "
        f"{side}: options: {{{SIZE}: {side}}}, or {SIZE}: {size} to keep it so"
        for (task, data, size), own in sizes.items() for side, names in own.items()
    ]  # fmt: skip


def _side(backbone: str) -> int | None:
    try:
        size = backbone_spec(backbone).image_size
    except (ValueError, OSError):  # said where its cells are blocked
        return None
    return size if isinstance(size, int) else size[0]
