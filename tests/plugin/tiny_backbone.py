"""A backbone of a few thousand random weights, for tests; `tiny_backbone:tiny` names it in suites."""

import torch

from backbones.contract import Features, Normalisation, VitShape
from backbones.flexible import FlexiBackbone
from backbones.zoo.architecture import initialise, vit_trunk


def tiny(pretrained: bool = True, drop_path: float = 0.0, seed: int = 0, **options: object) -> FlexiBackbone:
    """24 px, one block of width 16; always the same weights for a seed, as if they had been trained."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        trunk = initialise(vit_trunk(VitShape(16, 1, 2, 32, (8, 8), (4, 4), True, "token", 0), drop_path))
        for parameter in trunk.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return FlexiBackbone(trunk, Normalisation((0.5,) * 3, (0.5,) * 3), 24, 4, **options)


def broken(**options: object) -> FlexiBackbone:
    """A backbone that cannot be opened."""
    raise ValueError("these weights are torn")


class Plain(torch.nn.Module):
    """The contract's least: images and a grid to Features."""

    image_size, native_grid, embed_dim = 24, 4, 8

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.project = torch.nn.Linear(3, 8)

    def forward(self, images: torch.Tensor, grid: tuple[int, int]) -> Features:
        cells = torch.nn.functional.adaptive_avg_pool2d(images, grid).permute(0, 2, 3, 1)
        tokens = self.project(cells).tanh()
        return Features(tokens.mean((1, 2)), tokens)


class sick(Plain):
    """Not a number at grid 4."""

    def forward(self, images: torch.Tensor, grid: tuple[int, int]) -> Features:
        features = super().forward(images, grid)
        if tuple(grid) == (4, 4):
            features.pooled[:, 0] = float("nan")
        return features


def ruined(**options: object) -> FlexiBackbone:
    """Weights that are not numbers."""
    backbone = tiny(**options)
    for parameter in backbone.parameters():
        torch.nn.init.constant_(parameter, float("nan"))
    return backbone
