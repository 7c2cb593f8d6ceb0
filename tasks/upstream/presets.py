"""Recipes as data: the three official ones (big_vision `configs/proj/flexivit/*.py`) and two of this project."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from tasks.contract import Recipe, TaskError


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
    epochs: int = 90
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
            optimizer=self.optimizer, schedule="cosine", warmup=self.warmup, mixup=self.mixup, clip=1.0,
            ema=self.ema, weight_decay=self.weight_decay / self.learning_rate,
        )  # fmt: skip


# ImageNet-21k of autumn 2011 has 14,197,122 images (image-net.org), 51,200 are held out; of ImageNet-1k 1 %
I21K, I1K = 14_197_122 - 51_200, 1_281_167 - 12_812
PRESETS = {
    "i21k_sup": Preset(
        "imagenet21k", I21K, 4096, "sigmoid", 0.2, 1e-3, 1e-4, 10_000, 8, head_bias=-10.0,
        randaug=(2, 10),
    ),
    "i1k_deit3_distill": Preset(
        "imagenet", I1K, 1024, "kl", 1.0, 1e-4, 1e-5, 5_000, 16,
        teacher="timm:deit3_base_patch16_384.fb_in1k", squeeze=True,
    ),
    "i21k_distill": Preset(
        "imagenet21k", I21K, 4096, "kl", 1.0, 1e-4, 1e-5, 5_000, 8,
        teacher="timm:vit_base_patch8_224.augreg_in21k", squeeze=True,
    ),
    # this project's own, for a nano on 40,000 small pictures: what a pass costs is small, so pictures are seen often
    "nano": Preset(
        "tinyimagenet100", 40_000, 512, "softmax", 0.2, 2e-3, 2e-4, 400, 32, squeeze=True, epochs=40,
        optimizer="muon", batched=True, area=(0.25, 1.0), jitter=0.3, smoothing=0.1,
    ),
    "nano_distill": Preset(
        "tinyimagenet100", 40_000, 512, "kl", 0.2, 1e-3, 1e-4, 400, 8, teacher="vit_nano_g15", squeeze=True, epochs=40,
        optimizer="muon", batched=True, area=(0.25, 1.0), jitter=0.3,
    ),
}  # fmt: skip


def preset(name: str) -> Preset:
    """A recipe by name. Raises TaskError naming the nearest.

    Example: `preset("i21k_sup").head_bias == -10`
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, 2, 0.3) or list(PRESETS)
        raise TaskError(f"no preset {name!r}; nearest: {', '.join(near)}")
    return PRESETS[name]
