"""What became of the cells of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Summary:
    """Cells by what became of them; `failed` holds label and error, `blocked` label and what is missing."""

    done: list[str] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    blocked: list[tuple[str, str]] = field(default_factory=list)
    seconds: float | None = None

    @property
    def status(self) -> int:
        """Exit status: 0 when every cell has its rows."""
        return 1 if self.failed or self.blocked else 0

    def lines(self) -> list[str]:
        """What to print at the end.

        Example: `Summary(ran=["a"], seconds=7.2).lines()` is
        `["1 run, 0 done before, 0 failed, 0 blocked in 7 s"]`
        """
        counts: dict[str, Sequence[object]] = {
            "run": self.ran,
            "done before": self.done,
            "failed": self.failed,
            "blocked": self.blocked,
        }
        told = ", ".join(f"{len(cells)} {name}" for name, cells in counts.items())
        return [
            told + (f" in {duration(self.seconds)}" if self.seconds is not None else ""),
            *(f"failed: {label}: {error}" for label, error in self.failed),
            *(f"blocked: {label}: {missing}" for label, missing in self.blocked),
        ]


def duration(seconds: float) -> str:
    """For people.  Example: `duration(100)` is "1.7 min" """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
