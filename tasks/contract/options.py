"""What a user may change about a task, and what each change touches."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any


def option(default: Any, stage: str, help: str = "") -> Any:
    """A field of `Options`; `stage` "train" changes weights (train key), "eval" only rows (row key)."""
    assert stage in ("train", "eval"), stage
    metadata = {"stage": stage, "help": help}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Options:
    """Base of a task's options. Fields are declared with `option(default, stage)`."""

    def stage(self, stage: str) -> dict[str, Any]:
        """The options that matter to `stage`, in declared order."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.metadata.get("stage") == stage}
