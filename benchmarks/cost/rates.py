"""How fast devices were measured to be (`run_all.py bench --rates`), for plans; read without torch."""

from __future__ import annotations

import functools
import json
import math
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from backbones.contract import VitShape
from backbones.grids import Grid
from benchmarks.store import write_atomically

FILE = Path(__file__).parent / "rates.json"
SPEED = {"cpu": 2e10, "cuda": 4e13}  # MACs a second where nothing was measured: a core; a data-centre GPU in bf16


@dataclass(frozen=True)
class Rate:
    """Multiply-adds a second of one backbone at one grid, out of the box (eager).

    `training` counts a step as three forward passes; None where it was not timed. `made`: revision, versions, date.
    """

    device: str
    backbone: str
    width: int
    depth: int
    grid: int
    batch: int
    precision: str
    forward: float
    training: float | None
    made: str

    @property
    def identity(self) -> tuple:
        """What a later measurement replaces."""
        return self.device, self.backbone, self.grid, self.batch, self.precision


@functools.cache
def device_key(device: str) -> str:
    """The name that measurements of this machine go by: the GPU's, or the processor's with the threads of a process,
    as OMP_NUM_THREADS or the number of CPUs says.

    A name that is no `cpu` or `cuda` is taken as it is: a plan may be made for another machine.

    Example: `device_key("cpu")` is "AMD EPYC, 1 thread" under OMP_NUM_THREADS=1
    """
    if device.split(":")[0] == "cuda":
        return _gpu() or "cuda"
    if device != "cpu":
        return device
    told = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]  # one number a level of nesting
    threads = int(told) if told.isdigit() else os.cpu_count() or 1
    return f"{_processor()}, {threads} thread{'s' * (threads > 1)}"


def device_here() -> str:
    """The device that a run takes where none is asked for: cuda where this torch can see a GPU. Without torch.

    Example: with CUDA_VISIBLE_DEVICES="" it is "cpu"
    """
    try:
        built_for_cpu = "+cpu" in version("torch")
    except PackageNotFoundError:
        built_for_cpu = True
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")
    return "cpu" if built_for_cpu or hidden or _gpu() is None else "cuda"


def _processor() -> str:
    about = Path("/proc/cpuinfo")
    if about.is_file():
        for line in about.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _gpu() -> str | None:
    if not (command := shutil.which("nvidia-smi")):
        return None
    asked = [command, "--query-gpu=name", "--format=csv,noheader"]
    found = subprocess.run(asked, capture_output=True, encoding="utf-8", errors="replace").stdout.splitlines()
    return found[0].strip() if found else None


def read_rates(path: Path = FILE) -> list[Rate]:
    """All measurements of a file; none where there is no file.

    Raises: ValueError for a file that is torn or another's.
    """
    if not path.is_file():
        return []
    try:
        return [Rate(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is no table of `bench --rates` ({error}); remove it, or measure anew") from error


def keep_rates(path: Path, measured: Iterable[Rate]) -> None:
    """Add measurements to a file, each in place of an older one of the same identity; whole or not at all."""
    table = {rate.identity: rate for rate in [*read_rates(path), *measured]}
    lines = ",\n".join(json.dumps(asdict(table[key])) for key in sorted(table))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda partial: partial.write_text(f"[\n{lines}\n]\n", encoding="utf-8"))


def assumed_speed(device: str, rates: Iterable[Rate]) -> float:
    """MACs a second of a device that may not have been measured.

    Raises: ValueError for a name that is neither `cpu`, `cuda`, nor one in the table.

    Example: `assumed_speed("cuda:1", read_rates()) == SPEED["cuda"]`
    """
    kind = device.split(":")[0]
    known = sorted({rate.device for rate in rates})
    if kind not in SPEED and device not in known:
        raise ValueError(f"no device {device!r} to plan for; there are: {', '.join([*SPEED, *known])}")
    return SPEED.get(kind, SPEED["cpu"])


def nearest(rates: Iterable[Rate], device: str, shape: VitShape, grid: Grid) -> Rate | None:
    """The measurement of that device whose model and grid are nearest: of width first, then of tokens, both by ratio.

    Example: `nearest(read_rates(), device_key("cpu"), backbone_spec("flexivit_s_i1k").shape, (15, 15))`
    """

    def apart(rate: Rate) -> tuple[float, float]:
        tokens = abs(math.log(grid[0] * grid[1] / rate.grid**2))
        return abs(math.log(shape.width / rate.width)), tokens

    return min((rate for rate in rates if rate.device == device), key=apart, default=None)
