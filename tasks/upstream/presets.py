"""The presets of `protocol.yaml`: the three official ones (big_vision `configs/proj/flexivit`), two of our own."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.contract import Recipe, TaskError
from tasks.protocols import protocol


def _settings(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}


@dataclass(frozen=True)
class Preset:
    """Constants of one configuration file, of those that are not the same in all three.

    `images`: training images of `data`, for the length of an epoch. `weight_decay` is big_vision's: not multiplied by
    the learning rate. `mixup`: the p of Beta(p, p). `teacher`: frozen, and where the student starts; none: random
    weights. `base_patch`: of the student's stored kernel. `randaug`: operations and magnitude. `squeeze`: pictures
    are evaluated after `resize(272)`, which changes the aspect, and not `resize_small(272)`.

    `batched`: pictures are cropped, mirrored and changed in colour as a batch where the model computes, and a crop has
    `area` of the picture; else by the processes that decode, as the official ones. `jitter`: of brightness, contrast
    and saturation; `smoothing`: of labels.
    """

    data: str
    images: int
    batch: int
    loss: str  # sigmoid (summed over classes) | softmax | kl
    mixup: float
    learning_rate: float
    weight_decay: float
    warmup: int
    base_patch: int
    teacher: str = ""
    head_bias: float = 0.0
    randaug: tuple[int, int] | None = None
    squeeze: bool = False
    epochs: int = protocol("upstream").value("epochs")
    optimizer: str = "adamw_bf16"
    ema: float = 0.0
    batched: bool = False
    area: tuple[float, float] = (0.05, 1.0)
    jitter: float = 0.0
    smoothing: float = 0.0

    def recipe(self, epochs: int = 0) -> Recipe:
        """As the training loop reads it. Adam's decay becomes that of AdamW, which multiplies it by the rate; the first
        moment of `adamw_bf16` is kept in bfloat16 as theirs.

        Example: `preset("i1k_deit3_distill").recipe(epochs=300).steps`
        """
        return Recipe(
            steps=round(self.images * (epochs or self.epochs) / self.batch), batch=self.batch, lr=self.learning_rate,
            optimizer=self.optimizer, schedule="cosine", warmup=self.warmup, mixup=self.mixup,
            clip=PROTOCOL.value("clip"), ema=self.ema, weight_decay=self.weight_decay / self.learning_rate,
        )  # fmt: skip


PROTOCOL = protocol("upstream")
PRESETS = {name: Preset(**_settings(one.settings)) for name, one in PROTOCOL.recipes.items()}


def preset(name: str) -> Preset:
    """A recipe by name. Raises TaskError naming the nearest.

    Example: `preset("i21k_sup").head_bias == -10`
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, 2, 0.3) or list(PRESETS)
        raise TaskError(f"no preset {name!r}; nearest: {', '.join(near)}")
    return PRESETS[name]
