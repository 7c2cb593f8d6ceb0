"""What was found of data before, kept in the cache as JSON; a cache that is torn or full costs time, never a run."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def recall(place: Path) -> dict[str, Any] | None:
    """What is kept there; None for nothing, or a file that is no JSON object."""
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def remember(place: Path, found: dict[str, Any]) -> None:
    """Keep it, whole or not at all."""
    write_whole(place, json.dumps(found).encode())


def write_whole(place: Path, content: bytes) -> None:
    """Write a file of the cache, whole or not at all; nothing is kept where the cache cannot be written."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=place.parent, suffix=".tmp")
    except OSError:
        return
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(partial, place)
    except OSError:
        Path(partial).unlink(missing_ok=True)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
