"""Weights that are fetched once and kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path


class WeightsError(ValueError):
    """A weights file that cannot be used, in one line: which file, which key, what was expected and found."""


def cache_folder() -> Path:
    """Where downloads lie: `FLEXIVIT_CACHE`, else `~/.cache/flexivit`."""
    return Path(os.environ.get("FLEXIVIT_CACHE", Path.home() / ".cache" / "flexivit"))


def sha256(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(url: str, checksum: str | None = None) -> Path:
    """Path of a cached download; downloads once, atomically.

    Raises: WeightsError without a network (where to put the file by hand) and for a checksum mismatch.
    """
    target = cache_folder() / url.rsplit("/", 1)[-1]
    if not target.exists():
        partial = target.with_name(f"{target.name}.{os.getpid()}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            print(f"downloading {url} -> {target}")
            with urllib.request.urlopen(url, timeout=30) as source, partial.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
            partial.replace(target)
        except (OSError, urllib.error.URLError) as error:
            raise WeightsError(
                f"cannot download {url} ({error}); fetch it elsewhere and put it at {target}, or set FLEXIVIT_CACHE "
                "to the folder that has it"
            ) from error
        finally:
            partial.unlink(missing_ok=True)
    verify(target, checksum)
    return target


def verify(path: Path, checksum: str | None) -> None:
    """Raise WeightsError where the file's SHA-256 does not begin with `checksum`; None accepts any."""
    if checksum and not (found := sha256(path)).startswith(checksum):
        raise WeightsError(f"{path}: checksum mismatch, expected sha256 {checksum}, found {found}; delete it and retry")
