"""The three official FlexiViT recipes as data (big_vision `configs/proj/flexivit/*.py`)."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from backbones.grids import PAPER_GRIDS


@dataclass(frozen=True)
class Recipe:
    """Constants of one configuration file.

    `weight_decay` is big_vision's: not multiplied by the learning rate, on kernels only, times the schedule. torch's
    AdamW multiplies, so it takes `torch_decay`. `mixup`: the p of Beta(p, p). `teacher`, `student`: initial weights,
    None for random ones. Their Adam keeps its first moment in bfloat16; ours in float32 (3e-5 over 8 steps).
    """

    data: str
    classes: int
    batch: int
    epochs: int
    published_epochs: tuple[int, ...]
    loss: str
    mixup: float
    learning_rate: float
    weight_decay: float
    warmup: int
    base_patch: int
    teacher: str | None = None
    student: str | None = None
    teacher_size: int | None = None
    head_bias: float = 0.0
    image_size: int = 240
    position_grid: int = 7
    pool: str = "token"
    temperature: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    clip: float = 1.0
    grids: tuple[int, ...] = PAPER_GRIDS
    crop_area: tuple[float, float] = (0.05, 1.0)
    randaug: tuple[int, int] | None = None
    evaluation: str = "resize(272)|central_crop(240)"

    @property
    def torch_decay(self) -> float:
        """`weight_decay` of torch's AdamW for the same updates."""
        return self.weight_decay / self.learning_rate


RECIPES = {
    "i21k_sup": Recipe(
        "imagenet21k full[51200:]", 21843, 4096, 90, (90, 300, 1000), "sigmoid_xent", 0.2, 1e-3, 1e-4, 10_000, 8,
        head_bias=-10.0, randaug=(2, 10), evaluation="resize_small(272)|central_crop(240)",
    ),
    "i1k_deit3_distill": Recipe(
        "imagenet2012 train[:99%]", 1000, 1024, 90, (90, 300, 600, 1200), "kl", 1.0, 1e-4, 1e-5, 5_000, 16,
        teacher="deit3_{variant}_384_1k", student="deit3_{variant}_384_1k", teacher_size=384,
    ),
    "i21k_distill": Recipe(
        "imagenet21k full[51200:]", 21843, 4096, 90, (90,), "kl", 1.0, 1e-4, 1e-5, 5_000, 8,
        teacher="howto-i21k-B/8", student="howto-i21k-B/8", teacher_size=224,
    ),
}  # fmt: skip


def recipe(name: str) -> Recipe:
    """A recipe by name. Raises ValueError naming the nearest.

    Example: `recipe("i1k_deit3_distill").torch_decay`
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, 2, 0.3) or list(RECIPES)
        raise ValueError(f"no recipe {name!r}; nearest: {', '.join(near)}")
    return RECIPES[name]
