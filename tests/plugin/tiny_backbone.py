"""A backbone of a few thousand random weights, for tests; `tiny_backbone:tiny` names it in suites."""

import torch

from backbones.contract import Normalisation, VitShape
from backbones.flexible import FlexiBackbone
from backbones.zoo.architecture import initialise, vit_trunk


def tiny(pretrained: bool = True, drop_path: float = 0.0, seed: int = 0) -> FlexiBackbone:
    """24 px, one block of width 16; always the same weights for a seed, as if they had been trained."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        trunk = initialise(vit_trunk(VitShape(16, 1, 2, 32, (8, 8), (4, 4), True, "token", 0), drop_path))
        for parameter in trunk.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return FlexiBackbone(trunk, Normalisation((0.5,) * 3, (0.5,) * 3), 24, 4)


def broken(**options: object) -> FlexiBackbone:
    """A backbone that cannot be opened."""
    raise ValueError("these weights are torn")
