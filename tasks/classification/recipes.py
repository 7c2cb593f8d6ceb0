"""Published recipes by data set; for all others steps and learning rate compete on minival."""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.contract import Recipe


def _official(steps: int, warmup: int, lr: float) -> Recipe:
    """big_vision's transfer recipe: SGD with momentum, clip 1, cosine, batch 512, no decay, no mixup."""
    return Recipe(steps=steps, batch=512, lr=lr, optimizer="sgd", schedule="cosine", warmup=warmup, clip=1.0)


def _searched() -> Recipe:
    """The same where no best setting is published: steps and learning rate compete on minival."""
    lengths, rates = ((500, 100), (2500, 200)), (0.003, 0.01, 0.03)
    tries = tuple({"steps": s, "warmup": w, "lr": lr} for s, w in lengths for lr in rates)
    return Recipe(steps=500, batch=512, lr=0.01, warmup=100, clip=1.0, candidates=tries)


def _mini(steps: int) -> Recipe:
    # chosen on minival of cars98 with flexivit_nano at grid 8: 0.1 before 0.03, 0.3 and AdamW at 3e-4, 1e-3, 3e-3
    return Recipe(steps=steps, batch=32, lr=0.1, warmup=20, clip=1.0)


@dataclass(frozen=True)
class Published:
    """`crop`: training crop of the published recipe, inception or resmall; `image_size`: pixels per side."""

    recipe: Recipe = field(default_factory=_searched)
    crop: str = "inception"
    image_size: int = 240


PUBLISHED: dict[str, Published] = {
    "imagenet": Published(_official(20_000, 500, 0.03)),
    "cifar10": Published(_official(10_000, 500, 0.003), "resmall"),
    "cifar100": Published(_official(10_000, 500, 0.01), "resmall"),
    "pets": Published(_official(500, 100, 0.003)),
    "flowers": Published(_official(500, 100, 0.003)),
    "scenes": Published(Recipe(steps=200, batch=16, lr=0.003, optimizer="adamw", warmup=10), "resmall", 120),
    "tinyimagenet100": Published(image_size=120),
    "cars98": Published(_mini(300), image_size=120),
    "imagewoof9": Published(_mini(150), image_size=120),
}  # fmt: skip


def published(name: str) -> Published:
    """The recipe of a set; of one without, the search.

    Example: `published("pets").recipe.steps == 500`
    """
    return PUBLISHED.get(name) or Published()
