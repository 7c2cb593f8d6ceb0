"""Where and with what a row was made."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "timm", "accelerate", "faiss-cpu", "numpy", "pillow")
ROOT = Path(__file__).resolve().parents[2]
FILE = "revision.txt"  # beside this module in a build; setup.py, which runs this file, writes it


@functools.cache
def environment() -> dict[str, Any]:
    """Versions, code revision and machine, once per process.

    Example: `environment()["versions"]["torch"]`
    """
    import torch

    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {
        "versions": versions, "revision": revision(), "device_name": device, "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(), "system": platform.platform(), "command": " ".join(sys.argv),
    }  # fmt: skip


def revision(root: Path = ROOT) -> str | None:
    """Twelve digits of the commit, with `+changes` where tracked files differ from it; None where it is not known.

    An installed package may lie within a repository of the user's own, whose revision says nothing of it: git is
    asked only where `root` is the top of the repository.

    Example: `revision()` is `"5dbfb1b0e2c4"`
    """

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, encoding="utf-8", errors="replace", timeout=10
        ).stdout.strip()

    try:
        top = git("rev-parse", "--show-toplevel")
        if top and Path(top).resolve() == Path(root).resolve() and (head := git("rev-parse", "--short=12", "HEAD")):
            return head + "+changes" * bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.TimeoutExpired):
        pass
    built = Path(root, "benchmarks", "store", FILE)
    return built.read_text(encoding="utf-8").strip() or None if built.is_file() else None
