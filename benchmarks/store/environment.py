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
        "versions": versions, "revision": _revision(), "device_name": device, "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(), "system": platform.platform(), "command": " ".join(sys.argv),
    }  # fmt: skip


def _revision() -> str | None:
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=here, capture_output=True, encoding="utf-8", errors="replace", timeout=10
        ).stdout.strip()

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        return f"{head}{'+changes' if git('status', '--porcelain', '--untracked-files=no') else ''}" if head else None
    except (OSError, subprocess.TimeoutExpired):
        return None
