"""FlexiViT in mmsegmentation's own configs: `backbone=dict(type="FlexiViT", name="flexivit_b_i1k", grid=30)`.

Import it (`custom_imports=dict(imports=["tasks.segmentation.mmseg_backbone"])` in a config) and mmseg's `MODELS` knows
the type. The data preprocessor of mmseg normalises then; `preprocessor(name)` gives the one that fits the weights.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tasks.segmentation import mmcv_lite

mmcv_lite.install()

import mmseg.models  # noqa: E402, F401  (fills the registry)
from mmengine.model import BaseModule  # noqa: E402
from mmseg.registry import MODELS  # noqa: E402


@MODELS.register_module()
class FlexiViT(BaseModule):
    """Any backbone of this package as one of mmseg: normalised images `[B, 3, H, W]` -> `(map [B, D, h, w],)`.

    `grid` (tokens per side, int or (h, w)) may be changed at any time: no parameter depends on it. It must divide the
    size of the images that arrive. With `patch` (pixels) instead, the grid follows the size of the images.
    Other options go to `build_backbone`.

    Raises: ValueError unless one of `grid` and `patch` is given, or for a grid that does not divide the images.

    Example: `MODELS.build(dict(type="FlexiViT", name="flexivit_nano", grid=15))`
    """

    def __init__(
        self,
        name: str,
        grid: int | tuple[int, int] | None = None,
        patch: int | None = None,
        init_cfg: dict[str, Any] | None = None,
        **options: Any,
    ):
        super().__init__(init_cfg)
        if (grid is None) == (patch is None):
            raise ValueError(f"FlexiViT needs either grid or patch, not grid={grid} and patch={patch}")
        from backbones import build_backbone

        self.encoder = build_backbone(name, **options)
        self.grid, self.patch = grid, patch

    @property
    def embed_dim(self) -> int:
        """Channels of the map: the head's `in_channels`."""
        return self.encoder.embed_dim

    def forward(self, images: Tensor) -> tuple[Tensor]:
        grid = self.grid
        if self.patch is not None:
            height, width = images.shape[-2:]
            if height % self.patch or width % self.patch:
                raise ValueError(f"patch {self.patch} does not divide images of {width}x{height} px")
            grid = (height // self.patch, width // self.patch)
        features = self.encoder(images, (grid, grid) if isinstance(grid, int) else tuple(grid))
        return (features.map.permute(0, 3, 1, 2).contiguous(),)


def preprocessor(name: str, crop: int, **options: Any) -> dict[str, Any]:
    """Config of mmseg's data preprocessor for the normalisation of a backbone, padding to `crop` pixels.

    Example: `model = dict(data_preprocessor=preprocessor("flexivit_nano", 240), ...)`
    """
    from backbones import build_backbone

    # a random model is enough: the normalisation belongs to the name, not to the numbers of its weights
    normalisation = build_backbone(name, pretrained=False, **options).normalisation
    return {
        "type": "SegDataPreProcessor", "mean": [255 * m for m in normalisation.mean],
        "std": [255 * s for s in normalisation.std], "bgr_to_rgb": True, "pad_val": 0, "seg_pad_val": 255,
        "size": (crop, crop),
    }  # fmt: skip
