"""Where cells run: on this machine (`local`), or as jobs of a cluster (`slurm`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.engine.running.options import RunOptions
    from benchmarks.engine.suite import Suite


@dataclass(frozen=True)
class Work:
    """What is to be run, and into which folder; the same for every executor.

    Example: `Work(load_suite("demo"), Path("results/runs/demo"), Path("data"), RunOptions())`
    """

    suite: Suite
    out: Path
    data_root: Path
    options: RunOptions

    def planned(self, gpus: bool = False) -> dict[str, Any]:
        """What `plan` must know of the run, so that it counts the same rows; `gpus`: do its processes have one?"""
        on_gpu = gpus or self.options.device.startswith("cuda")
        return {
            "device": "cuda" if on_gpu else "cpu", "precision": self.options.precision, "costs": False,
            "skip_broken": self.options.skip_broken, "limit": self.options.limit,
            "eval_weights": self.options.eval_weights,
        }  # fmt: skip
