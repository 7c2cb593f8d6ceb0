"""FlexiViT in mmsegmentation's own configs: `backbone=dict(type="FlexiViT", name="flexivit_b_i1k", grid=30)`.

`custom_imports=dict(imports=["tasks.segmentation.mmseg_backbone"])` in a config makes mmseg know the types of this
module and of `tasks.segmentation.mmseg_runner`: backbone, data preprocessor, training and testing at several grids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from torch import Tensor, nn

from tasks.segmentation import mmcv_lite

mmcv_lite.install()

import mmseg.models  # noqa: E402, F401  (fills the registry)
from mmengine.model import BaseModule  # noqa: E402
from mmseg.registry import MODELS  # noqa: E402

from backbones import build_backbone  # noqa: E402
from tasks.segmentation import mmseg_runner  # noqa: E402
from tasks.segmentation.mmseg_runner import preprocessor  # noqa: E402

__all__ = ["FlexiViT", "mmseg_runner", "preprocessor"]

# mmseg's layer decay reads the depth of a parameter off these names, `backbone.layers.3...` and so on
ALIASES = {"layers": "blocks", "patch_embed": "patch_embed", "pos_embed": "pos_embed", "cls_token": "cls_token"}


# mmseg's LearningRateDecayOptimizerConstructor takes classes alone that have BEiT or MAE in their names
@MODELS.register_module(name="FlexiViT")
class FlexiViTLikeMAE(BaseModule):
    """Any backbone of this package as one of mmseg: normalised images `[B, 3, H, W]` -> maps `[B, D, h, w]`.

    `grid` may be changed at any time, also to one that stands above `patch`: no parameter depends on it.

    Args:
        name: of a backbone.
        grid: tokens per side, int or (h, w); must divide the images that arrive.
        patch: pixels, instead: the grid follows the size of the images.
        out_indices: blocks whose maps are given, from 0 or negative from the end; the last one after the final norm,
            the others before it, as mmseg's ViTs give them.
        frozen_stages: -1 trains everything, 0 freezes patches and positions, k the first k blocks as well.
        with_cp: compute activations again in the backward pass instead of keeping them.
        options: go to `build_backbone`.

    Raises: ValueError unless one of `grid` and `patch` is given, or for a grid that does not divide the images;
        IndexError for a block beyond the end.

    Example: `MODELS.build(dict(type="FlexiViT", name="flexivit_nano", grid=15, out_indices=(1, 2, 3, 5)))`
    """

    def __init__(
        self,
        name: str,
        grid: int | tuple[int, int] | None = None,
        patch: int | None = None,
        out_indices: int | Sequence[int] = -1,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
        **options: Any,
    ):
        super().__init__(init_cfg)
        if (grid is None) == (patch is None):
            raise ValueError(f"FlexiViT needs either grid or patch, not grid={grid} and patch={patch}")
        encoder = build_backbone(name, **options)
        trunk = getattr(encoder, "trunk", None)
        if trunk is not None:
            for alias, inner in ALIASES.items():
                if (part := getattr(trunk, inner, None)) is not None:
                    setattr(self, alias, part)  # before the encoder: a parameter is called by its first name
            trunk.reset_classifier(0)
        self.encoder = encoder
        self.grid, self.patch = grid, patch
        self.out_indices = (out_indices,) if isinstance(out_indices, int) else tuple(out_indices)
        self.frozen_stages = frozen_stages
        depth = len(trunk.blocks) if trunk is not None else 1
        if wrong := [i for i in self.out_indices if not -depth <= i < depth]:
            raise IndexError(f"no block {wrong[0]}; {name} has {depth}, numbered from 0")
        if not -1 <= frozen_stages <= depth:
            raise ValueError(f"frozen_stages {frozen_stages} is not one of -1 to {depth}")
        if trunk is None and frozen_stages > -1:
            raise ValueError(f"{name} has no stages that could be frozen")
        self.depth = depth
        if with_cp:
            encoder.set_grad_checkpointing()
        self._freeze()
        # both names of a tensor in a checkpoint would be one too many
        self.register_state_dict_post_hook(_without_aliases)
        self.register_load_state_dict_pre_hook(_with_aliases)

    @property
    def embed_dim(self) -> int:
        """Channels of a map: the head's `in_channels`."""
        return self.encoder.embed_dim

    def _frozen(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        return [self.encoder.trunk.patch_embed, *self.encoder.trunk.blocks[: self.frozen_stages]]

    def _freeze(self) -> None:
        trunk = getattr(self.encoder, "trunk", None)
        if trunk is None:
            return
        unused = [m for m in (trunk.fc_norm, trunk.attn_pool) if m is not None]  # of pooled features, which none reads
        for module in (*self._frozen(), *unused):
            module.requires_grad_(False)
        if self.frozen_stages >= 0:
            special = (trunk.pos_embed, trunk.cls_token, trunk.reg_token, getattr(trunk, "dist_token", None))
            for value in (v for v in special if v is not None):
                value.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self._frozen():
            module.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        height, width = images.shape[-2:]
        if self.grid is None:  # a grid set later, by a schedule or a loop over grids, stands above the patch size
            if height % self.patch or width % self.patch:
                pad = f"data_preprocessor=dict(..., test_cfg=dict(size_divisor={self.patch})) pads whole ones"
                raise ValueError(f"patch {self.patch} does not divide images of {width}x{height} px; {pad}")
            size = (height // self.patch, width // self.patch)
        else:
            size = (self.grid, self.grid) if isinstance(self.grid, int) else tuple(self.grid)
            if height % size[0] or width % size[1]:
                cut = "test_cfg=dict(mode='slide', crop_size=..., stride=...) takes windows of one size"
                raise ValueError(f"grid {size[0]}x{size[1]} does not divide images of {width}x{height} px; {cut}")
        indices = [i % self.depth for i in self.out_indices]
        inner = [i for i in indices if i != self.depth - 1]
        features = self.encoder(images, size, **({"taps": inner} if inner else {}))
        maps = [features.taps[i] if i in inner else features.map for i in indices]
        return tuple(m.permute(0, 3, 1, 2).contiguous() for m in maps)


FlexiViT = FlexiViTLikeMAE


def _alias_of(key: str) -> str | None:
    """`layers.0.norm1.weight` -> `encoder.trunk.blocks.0.norm1.weight`; None for a name that is no alias."""
    first, _, rest = key.partition(".")
    return f"encoder.trunk.{ALIASES[first]}{'.' + rest if rest else ''}" if first in ALIASES else None


def _without_aliases(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for key in [k for k in state if k.startswith(prefix)]:
        if (name := _alias_of(key.removeprefix(prefix))) and prefix + name in state:
            del state[key]


def _with_aliases(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    names = [n for n, _ in module.named_parameters(remove_duplicate=False)]
    names += [n for n, _ in module.named_buffers(remove_duplicate=False)]
    for name in names:
        if (source := _alias_of(name)) and prefix + source in state:
            state.setdefault(prefix + name, state[prefix + source])
