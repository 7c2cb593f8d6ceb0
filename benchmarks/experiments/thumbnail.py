"""A picture shrunk to 8 x 8 pixels, as a backbone: what features that learnt something must be better than.

run_all.py run mini/classification --only protocol=knn --data-root DATA
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from backbones.contract import Features

SIDE = 8  # pixels


class Thumbnail(nn.Module):
    """No weights: the grid changes nothing.

    Example: `Thumbnail()(torch.zeros(2, 3, 120, 120), (8, 8)).pooled.shape` is (2, 192)
    """

    image_size, native_grid, embed_dim = 120, SIDE, 3 * SIDE**2

    def forward(self, images: Tensor, grid: tuple[int, int]) -> Features:
        """Normalised pixels `[B, 3, H, W]` to their means `[B, 192]`; as tokens `[B, 8, 8, 3]`."""
        small = F.adaptive_avg_pool2d(images, (SIDE, SIDE))
        return Features(small.flatten(1), small.permute(0, 2, 3, 1))
