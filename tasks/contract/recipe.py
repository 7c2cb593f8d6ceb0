"""How a task is fine-tuned, as data."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from tasks.contract.errors import TaskError
from tasks.contract.options import field_types, fitting

OPTIMIZERS = ("sgd", "adamw", "adamw_bf16", "adam", "muon")
SCHEDULES = ("cosine", "poly", "constant")
MATRICES = ("float32", "bf16")
CHOICES = (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("matrices", MATRICES), ("residual", MATRICES))
LATER = {"later": True}  # of a field that rows were made without: at its default it is in no key


@functools.cache
def _later(cls: type) -> dict[str, Any]:
    return {f.name: f.default for f in dataclasses.fields(cls) if f.metadata.get("later")}


class RecipeError(TaskError):
    """An invalid recipe. `field`: the value to change."""

    def __init__(self, field: str, told: str):
        super().__init__(f"recipe: {told}")
        self.field = field

    def __reduce__(self) -> tuple[Any, ...]:
        return RecipeError, (self.field, str(self).removeprefix("recipe: "))


@dataclass(frozen=True)
class Recipe:
    """How a task is fine-tuned. Steps 0 means nothing is trained (k-NN, zero-shot, studies)."""

    steps: int = 0
    batch: int = 512
    lr: float = 0.01
    lr_groups: Mapping[str, float] = field(default_factory=dict)  # name prefix -> factor on `lr`; 0 locks
    optimizer: str = "sgd"  # sgd (momentum .9) | adamw | adamw_bf16 | adam | muon (for block matrices)
    schedule: str = "cosine"  # cosine | poly | constant
    warmup: int = 0  # steps, linear from 0
    end_lr: float = 0.0  # where poly ends, for a group at `lr`; other groups end in proportion
    weight_decay: float = 0.0  # torch AdamW convention: multiplied by the learning rate
    decay_kernels_only: bool = True  # biases, norms, positions and tokens are never decayed
    clip: float | None = 1.0
    clip_per_example: bool = False
    drop_path: float = 0.0
    mixup: float = 0.0  # Beta parameter; 0 is off
    ema: float = 0.0
    accumulate: int = 1
    candidates: tuple[Mapping[str, Any], ...] = ()  # recipe changes that compete on minival
    coupled: bool = False  # the loss looks across the batch: never split it
    matrices: str = field(default="float32", metadata=LATER)  # bf16: block matrices multiply in bfloat16 in training
    residual: str = field(default="float32", metadata=LATER)  # bf16: tokens pass blocks so in training under autocast

    def decisive(self) -> dict[str, Any]:
        """What keys are made of: all values, those of later versions only where they are set.

        Example: `"matrices" in Recipe().decisive()` is False
        """
        own: type = type(self)
        later = _later(own)
        return {n: v for n, v in dataclasses.asdict(self).items() if n not in later or v != later[n]}

    def replaced(self, changes: Mapping[str, Any]) -> Self:
        """A recipe with some values replaced, their types checked; `check` looks at the whole.

        Raises: TaskError for a name that no recipe has, or a value of another type.

        Example: `recipe.replaced({"steps": 50, "warmup": 5})`
        """
        hints = field_types(type(self))
        known: Sequence[str] = [f.name for f in dataclasses.fields(self)]
        values: dict[str, Any] = {}
        for name, value in changes.items():
            if name not in known:
                near = difflib.get_close_matches(str(name), known, 3, 0.4) or known
                raise TaskError(f"recipe: no {name!r}; nearest: {', '.join(near)}")
            values[name] = fitting(f"recipe: {name}", value, hints[name])
        if isinstance(values.get("lr_groups"), Mapping):
            groups = values["lr_groups"]
            if odd := [k for k in groups if not isinstance(k, str)]:
                raise TaskError(f"recipe: lr_groups must have texts as keys, prefixes of parameters, not {odd[0]!r}")
            values["lr_groups"] = {k: fitting(f"recipe: lr_groups {k}", v, float) for k, v in groups.items()}
        for name, known in CHOICES:
            if name in values and values[name] not in known:
                near = difflib.get_close_matches(values[name], known, 3, 0.4) or known
                raise TaskError(f"recipe: no {name} {values[name]!r}; nearest: {', '.join(near)}")
        for candidate in values.get("candidates", ()):
            if not isinstance(candidate, Mapping):
                told = "candidates must be a list of mappings, such as [{lr: 0.01}]"
                raise TaskError(f"recipe: {told}, not {candidate!r}")
            if "candidates" in candidate:
                raise TaskError(f"recipe: a candidate has no candidates of its own: {dict(candidate)}")
            self.replaced(candidate)
        return dataclasses.replace(self, **values)

    def check(self) -> None:
        """Refuse what cannot be trained: a value out of range, a warm-up as long as the training. Not its candidates.

        Raises: RecipeError naming the first such value.
        """
        for name, known in CHOICES:
            if getattr(self, name) not in known:
                raise RecipeError(name, f"no {name} {getattr(self, name)!r}; there are: {', '.join(known)}")
        numbers: dict[str, Any] = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        numbers |= {f"lr_groups.{name}": value for name, value in self.lr_groups.items()}
        groups = [name for name in numbers if name.startswith("lr_groups.")]
        positive = ("steps", "warmup", "lr", "end_lr", "weight_decay", "mixup", *groups)
        at_least = dict.fromkeys(("batch", "accumulate"), 1) | dict.fromkeys(positive, 0)
        for name, value in numbers.items():
            field = name.partition(".")[0]
            if isinstance(value, int | float) and not math.isfinite(value):
                raise RecipeError(field, f"{name} must be a finite number, not {value}")
            if name in at_least and value < at_least[name]:
                raise RecipeError(field, f"{name} must be {at_least[name]} or more, not {value}")
            if name in ("ema", "drop_path") and not 0 <= value < 1:
                raise RecipeError(field, f"{name} must be in [0, 1), not {value}")
        if self.clip is not None and self.clip <= 0:
            raise RecipeError("clip", f"clip must be above 0, or null for no clipping, not {self.clip}")
        if self.steps and self.warmup >= self.steps:
            raise RecipeError("warmup", f"warmup of {self.warmup} steps must be shorter than the {self.steps} steps")
        if self.accumulate > self.batch:
            raise RecipeError("accumulate", f"accumulate {self.accumulate} is more than the batch, {self.batch}")
        if self.coupled and self.accumulate > 1:
            raise RecipeError("accumulate", "accumulate: a coupled loss looks across the batch and is never split")
        if self.clip_per_example and (self.coupled or self.clip is None):
            why = "a coupled loss has no loss of an example" if self.coupled else "it needs a clip above 0"
            raise RecipeError("clip_per_example", f"clip_per_example: {why}")
