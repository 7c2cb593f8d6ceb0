"""How a task is fine-tuned, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """How a task is fine-tuned. Steps 0 means nothing is trained (k-NN, zero-shot, studies)."""

    steps: int = 0
    batch: int = 512
    lr: float = 0.01
    lr_groups: Mapping[str, float] = field(default_factory=dict)  # parameter-name prefix -> factor on `lr`
    optimizer: str = "sgd"  # sgd (momentum .9) | adamw | adamw_bf16 | adam | muon (for block matrices)
    schedule: str = "cosine"  # cosine | poly | constant
    warmup: int = 0  # steps, linear from 0
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
