"""Pictures of a run, kept beside its rows for the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from benchmarks.store import Store, key_of, write_atomically

FOLDER = "pictures"


def keep_pictures(store: Store, label: str, pictures: Sequence[tuple[str, Any]]) -> list[str]:
    """Write `(caption, PIL image)` of a cell as PNG files and note them in `pictures/index.json` (file -> caption).

    File names are hashes: nothing that comes from data can leave the folder. The same cell replaces its pictures.

    Returns: names of the files.
    """
    folder, names = store.folder / FOLDER, {}
    for number, (caption, image) in enumerate(pictures):
        name = f"{key_of({'label': label, 'number': number})}.png"
        write_atomically(folder / name, lambda path, image=image: image.save(path, "PNG"))
        names[name] = f"{label}: {caption}"
    with store.locked(FOLDER):
        index = folder / "index.json"
        known = json.loads(index.read_text(encoding="utf-8")) if index.exists() else {}
        write_atomically(
            index,
            lambda path: path.write_text(json.dumps(known | names, indent=1, ensure_ascii=False), encoding="utf-8"),
        )
    return list(names)
