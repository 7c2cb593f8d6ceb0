"""JSON and parquet files, with errors that name the file and what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.contract import TaskError


def read_json(path: str | Path) -> Any:
    """What a JSON file holds.

    Raises: TaskError for a file that is missing or no JSON.

    Example: `read_json("data/classification/cars98_meta.json")["class_names"]`
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TaskError(f"no file {path}") from None
    except ValueError as error:  # bytes that are no text among them
        raise TaskError(f"{path} is not JSON: {error}") from error


def read_columns(paths: Sequence[Path], required: Sequence[str], optional: Sequence[str] = ()) -> Any:
    """The named columns of parquet files, one after another, as a pyarrow table.

    Raises: TaskError for a file that is no parquet or torn, and for a missing column, naming those that are there.

    Example: `read_columns(sorted(folder.glob("train_*.parquet")), ("image", "label"), ("filename",))`
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for path in paths:
        try:
            present = pq.read_schema(path).names
            if absent := [c for c in required if c not in present]:
                raise TaskError(f"{path} has no column {absent[0]!r}; it has: {', '.join(present)}")
            tables.append(pq.read_table(path, columns=[*required, *(c for c in optional if c in present)]))
        except (pa.ArrowException, OSError) as error:
            raise TaskError(f"{path} cannot be read as parquet: {str(error).splitlines()[0]}") from error
    return pa.concat_tables(tables)
