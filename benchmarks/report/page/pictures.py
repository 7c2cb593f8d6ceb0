"""Pictures of a run on the page: strips over the grids, light enough for a phone."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.store import Store
from benchmarks.store.gallery import kept_pictures

PICTURES = 36  # more make the page heavy; the rest stays in its folder
BYTES = 1_200_000  # of all of them as text of the page


def strips(stores: Sequence[Store]) -> tuple[dict[str, list[dict[str, str]]], int]:
    """Pictures by cell as `{"data", "caption"}`, the first of each cell before any second; and how many are left out.

    Example: `strips([Store("results/runs/demo")])[0].keys()`
    """
    cells: dict[str, list[tuple[Path, str, Store]]] = {}
    for store in stores:
        for path, caption in kept_pictures(store):
            cell, _, own = caption.rpartition(": ")
            cells.setdefault(cell, []).append((path, own, store))
    longest = max(map(len, cells.values()), default=0)
    turns = [(cell, own[i]) for i in range(longest) for cell, own in cells.items() if i < len(own)]
    found: dict[str, list[dict[str, str]]] = {}
    count = size = left_out = 0
    for cell, (path, caption, store) in turns:
        if count == PICTURES or size > BYTES:
            left_out += 1
            continue
        try:
            data = _jpeg(path)
        except (OSError, ValueError, SyntaxError) as error:  # PIL raises the last for a damaged PNG
            store.report_fault(f"{path} cannot be read and is left out: {error}")
            continue
        found.setdefault(cell, []).append({"data": data, "caption": caption})
        count, size = count + 1, size + len(data)
    return found, left_out


def drawn(figure: Any) -> str:
    """A matplotlib figure as the address of a picture inside the page.

    Example: `drawn(plot(answer, "grid"))[:22]` is `data:image/png;base64,`
    """
    out = io.BytesIO()
    figure.savefig(out, dpi=110, facecolor="white")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def _jpeg(path: Path) -> str:
    """A fifth of the PNG's size."""
    from PIL import Image

    out = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(out, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
