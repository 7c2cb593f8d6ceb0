"""Per-sample values of a row: an `.npz` file beside the rows."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.store.files import StoreError, write_atomically

Samples = dict[str, np.ndarray]


def write_samples(path: Path, samples: Mapping[str, Any]) -> None:
    """Write arrays, whole or not at all; the first axis of each is samples, `ids` names them.

    Raises: StoreError where they cannot be written.
    """
    arrays = {name: np.asarray(values) for name, values in samples.items()}

    def write(partial: Path) -> None:
        with open(partial, "wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    write_atomically(path, write)


def read_samples(path: Path) -> Samples:
    """All arrays of a file. Nothing that it holds is run: pickled objects are refused.

    Raises: StoreError naming a file that is cut short or another's; FileNotFoundError.

    Example: `read_samples(Path("results/runs/demo/samples/0a1b2c3d4e5f6071.npz"))["ids"]`
    """
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array")
        with file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise
    except (OSError, EOFError, ValueError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        why = str(error).partition("\n")[0] or type(error).__name__
        raise StoreError(f"{path} cannot be read, it is cut short or not a file of samples: {why}") from error
