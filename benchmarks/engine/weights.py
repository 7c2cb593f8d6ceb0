"""Hashes of weights, remembered: a second look at a run builds no backbone and does not wait for torch."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import backbones
from backbones import backbone_spec
from backbones.weights.download import cache_folder
from benchmarks.store import key_of
from tasks.data.checks.remembered import recall, remember

SETTLED = 2.0  # seconds: a file that was changed so shortly before may change again within one tick of its clock
BUILDERS = ("torch", "timm", "numpy", "safetensors")  # packages that make weights of files, and new heads of nothing


def hash_of_weights(name: str, options: Mapping[str, Any]) -> str:
    """`weights_hash` of a backbone; random weights are those of seed 0.

    Kept in `FLEXIVIT_CACHE` where the backbone names its files: under name, options, the files' paths, sizes and times
    of change, the code that builds it and the versions of the packages that the code uses.

    Raises: what the backbone raises for weights that cannot be had.

    Example: `hash_of_weights("flexivit_nano", {})` is 16 hex digits
    """
    files = _files(name, options)
    before = _state(files)
    place = cache_folder() / "weights" / f"{key_of({'name': name, 'options': dict(options), **_code()})}.json"
    found = recall(place) if before else None
    if found and found.get("files") == before and isinstance(found.get("hash"), str):
        return found["hash"]
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = backbones.build_backbone(name, **options).weights_hash()
    now = _state(files)  # a download has come meanwhile
    settled = all(max(entry[2:]) < (time.time() - SETTLED) * 1e9 for entry in now)
    if now and settled and before in ([], now):
        remember(place, {"files": now, "hash": made})
    return made


def _files(name: str, options: Mapping[str, Any]) -> list[Path]:
    """Files that decide the weights; none where they are not known, or where `timm:` would be imported to ask."""
    spec = None if name.startswith("timm:") else backbone_spec(name)
    return [Path(file) for file in spec.files(**options)] if spec and spec.files else []


def _state(files: list[Path]) -> list[list[Any]]:
    """`[path, size, mtime, ctime]` of each file; empty where one is not there."""
    try:
        found = [(str(file.resolve()), os.stat(file)) for file in files]
    except OSError:
        return []
    return [[path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns] for path, stat in found]


@functools.lru_cache(maxsize=1)
def _code() -> dict[str, str]:
    """What turns files into weights: a hash of the package's own sources, and versions of others."""
    digest, root = hashlib.sha256(), Path(backbones.__file__).parent
    for source in sorted(root.rglob("*.py")):
        digest.update(f"{source.relative_to(root)}".encode() + source.read_bytes())
    return {"code": digest.hexdigest(), **{name: importlib.metadata.version(name) for name in BUILDERS}}
