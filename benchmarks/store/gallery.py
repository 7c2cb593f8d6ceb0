"""Pictures of a run, kept beside its rows for the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.store.files import write_atomically
from benchmarks.store.row import key_of
from benchmarks.store.store import Store

FOLDER = "pictures"


def keep_pictures(store: Store, label: str, pictures: Sequence[tuple[str, Any]], key: str = "") -> list[str]:
    """Write `(caption, PIL image)` of a cell as PNG files and note them in `pictures/index.json` (file -> caption).

    File names are hashes: nothing that comes from data can leave the folder. The same cell replaces its pictures.

    Args:
        label: stands before each caption.
        key: tells cells apart that have one label, such as those of two runs into one folder.

    Returns: names of the files.

    Raises: StoreError where they cannot be written.

    Example: `keep_pictures(store, "segmentation/scenes flexivit_nano, val", [("scene 3", image)])`
    """
    folder, names = store.folder / FOLDER, {}
    for number, (caption, image) in enumerate(pictures):
        name = f"{key_of({'key': key or label, 'label': label, 'number': number})}.png"
        write_atomically(folder / name, partial(image.save, format="PNG"))
        names[name] = f"{label}: {caption}"
    with store.locked(FOLDER):
        text = json.dumps(_index(store) | names, indent=1, ensure_ascii=False)
        write_atomically(folder / "index.json", lambda path: path.write_text(text, encoding="utf-8", errors="replace"))
    return list(names)


def kept_pictures(store: Store) -> list[tuple[Path, str]]:
    """Files and captions of a run's pictures; a name that points out of the folder is passed over.

    Example: `[caption for path, caption in kept_pictures(Store("results/runs/demo"))]`
    """
    folder = (store.folder / FOLDER).resolve()
    named = [((folder / name).resolve(), str(caption)) for name, caption in _index(store).items() if "\0" not in name]
    return [(path, caption) for path, caption in named if path.parent == folder and path.is_file()]


def _index(store: Store) -> dict[str, Any]:
    """What `index.json` holds; a torn one is a fault of the store and holds nothing."""
    path = store.folder / FOLDER / "index.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"a {type(content).__name__}, not an object")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        store.report_fault(f"{path} cannot be read, the pictures are left out: {error}")
        return {}
    return content
