"""Passing over pictures that cannot be read, where the user asks for it: each is counted and named, none silently."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.utils.data import Dataset

from tasks.contract import Batch, Task, TaskError
from tasks.contract.meters import gathered

NAMED = 10  # pictures that a row names


@dataclass(frozen=True)
class Unread:
    """Takes the place of a sample whose picture cannot be read."""

    index: int
    error: str


@dataclass
class Skipped:
    """Pictures that were passed over, each once. `part`: the split they belong to.

    Example: `Skipped("test").as_row()` is `{"count": 0, "first": []}`
    """

    part: str
    errors: dict[int, str] = field(default_factory=dict)

    def add(self, unread: Sequence[Unread]) -> None:
        self.errors |= {u.index: u.error for u in unread}

    def merge(self) -> None:
        """Gather from all processes."""
        self.errors = {index: error for errors in gathered(self.errors) for index, error in errors.items()}

    def as_row(self) -> dict[str, Any]:
        return {"count": len(self.errors), "first": [self.errors[i] for i in sorted(self.errors)[:NAMED]]}

    def note(self, of: int) -> str:
        """One line for logs and rows."""
        first = self.errors[min(self.errors)]
        return f"{len(self.errors)} of {of} pictures of {self.part} skipped, the first: {first}"


class Skipping(Dataset):
    """`dataset[place]` as it is, or `Unread` where it raises a TaskError."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, place: Any) -> Any:
        try:
            return self.dataset[place]
        except TaskError as error:
            return Unread(place[0] if isinstance(place, tuple) else place, str(error))


class CollateRead:
    """`samples -> (batch of those that were read or None, the others)`."""

    def __init__(self, collate: Callable[[Sequence[Any]], Batch]):
        self.collate = collate

    def __call__(self, samples: Sequence[Any]) -> tuple[Batch | None, list[Unread]]:
        read = [s for s in samples if not isinstance(s, Unread)]
        return self.collate(read) if read else None, [s for s in samples if isinstance(s, Unread)]


def may_skip(task: Task, asked: bool) -> bool:
    """Whether pictures of this task are passed over: only where a score over the others keeps its meaning."""
    return asked and task.skippable
