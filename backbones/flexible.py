"""Any timm ViT at any grid: the trunk is timm's, here is only what flexibility needs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from timm.data import create_transform, resolve_data_config
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from backbones.contract import Features, Normalisation
from backbones.encoder import Encoder
from backbones.grids import FILTERS, METHODS, Grid, Size, as_pair, patch_size
from backbones.kernels import ResizedKernels
from backbones.patches import embed_patches
from backbones.resize import resize_patch_kernel, resize_position_embedding

if TYPE_CHECKING:
    from PIL.Image import Image


def classifier(trunk: nn.Module) -> nn.Module | None:
    """The classifier of a timm model that takes pooled features, or None.

    A distilled DeiT averages two classifiers of two tokens, which is no function of them.
    """
    averaged = isinstance(getattr(trunk, "head_dist", None), nn.Linear)
    return None if averaged or isinstance(trunk.head, nn.Identity) else cast(nn.Module, trunk.head)


class FlexiBackbone(Encoder):
    """A timm `VisionTransformer` or `Eva` that runs at any grid.

    The trunk's own patch kernel `[D, C, h, w]` and positions are the base buffers; they are never overwritten, so
    `trunk.state_dict()` stays that of the timm model.

    Args:
        trunk: timm model, patch embedding a plain convolution.
        normalisation: mean and std of the weights, applied to uint8 input.
        image_size, native_grid: what the weights were made for; used by suites and calibration, not by `forward`.
        resize: kernel resize method (`backbones.grids.METHODS`) where neither a call nor a view names one.
        filter, position_filter: `bilinear` (official) or `bicubic`.
        fixed: other grids are resized from kernel and positions of the native one, see `fixed_at_native_grid`.

    Raises: ValueError for a model that is no ViT, or an option that there is not.

    Example::

        encoder = build_backbone("flexivit_nano")
        features = encoder(torch.zeros(2, 3, 120, 120, dtype=torch.uint8), grid=8)
    """

    view_fields = frozenset({"resize"})
    token_norm: Tensor | None

    def __init__(
        self,
        trunk: VisionTransformer | Eva,
        normalisation: Normalisation,
        image_size: Size | None = None,
        native_grid: Size | None = None,
        resize: str = "pi",
        filter: str = "bilinear",
        position_filter: str = "bilinear",
        fixed: bool = False,
    ):
        if not isinstance(trunk, VisionTransformer | Eva):
            raise ValueError(
                f"{type(trunk).__name__} is not a timm VisionTransformer or Eva and cannot run at any grid"
            )
        if not isinstance(getattr(trunk.patch_embed, "proj", None), nn.Conv2d):
            raise ValueError(f"{type(trunk.patch_embed).__name__} is not a patch convolution: no kernel to resize")
        for value, known in ((resize, METHODS), (filter, FILTERS), (position_filter, FILTERS)):
            if value not in known:
                raise ValueError(f"no resize option {value!r}; there are: {', '.join(known)}")
        grid, patch = trunk.patch_embed.grid_size, trunk.patch_embed.patch_size
        size = (grid[0] * patch[0], grid[1] * patch[1])  # what a convolution reads of a picture that it does not divide
        super().__init__(normalisation, image_size or size, native_grid or grid)
        self.trunk = trunk
        self._set_normalisation(self.base_kernel.device)
        self.position_grid = grid
        self.embed_dim = trunk.embed_dim
        self.resize, self.filter, self.position_filter = resize, filter, position_filter
        self.grad_checkpointing = False
        # `norm` method: mean token norm at the native grid; not a number of the weights, so not in the state dict
        self.register_buffer("token_norm", None, persistent=False)
        self._kept = ResizedKernels()
        if fixed:
            self.fixed_at_native_grid()

    def train(self, mode: bool = True) -> FlexiBackbone:
        self._kept.drop()  # training needs the memory
        return super().train(mode)

    def _begin_pass(self) -> None:
        if self.base_kernel.device.type != "cpu":  # what was kept of an earlier pass cannot be compared without waiting
            self._kept.drop()

    @property
    def head(self) -> nn.Module | None:
        """The upstream classifier, `head(features.pooled)`, or None."""
        return classifier(self.trunk)

    @property
    def base_kernel(self) -> nn.Parameter:
        """The stored patch kernel `[D, C, h, w]`."""
        return cast(nn.Parameter, self.trunk.patch_embed.proj.weight)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights; uint8 input is brought to it."""
        return self.base_kernel.dtype if "trunk" in self._modules else torch.float32

    def resized(self, patch: Grid, grid: Grid, resize: str) -> tuple[Tensor, Tensor | None]:
        """Kernel `[D, C, ph, pw]` and positions `[1, P + h*w, D]` (P = 0 where prefixes have none)."""
        kernel = resize_patch_kernel(self.base_kernel, patch, resize, self.filter)
        positions: Tensor | None = self.trunk.pos_embed
        if positions is not None:
            prefix = positions.shape[1] - self.position_grid[0] * self.position_grid[1]
            base = positions[0, prefix:].unflatten(0, self.position_grid)
            moved = resize_position_embedding(base, grid, self.position_filter).flatten(0, 1)[None]
            positions = torch.cat([positions[:, :prefix], moved], dim=1) if prefix else moved
        return kernel, positions

    def _cached(self, patch: Grid, grid: Grid, resize: str) -> tuple[Tensor, Tensor | None]:
        bases: list[Tensor] = [t for t in (self.base_kernel, self.trunk.pos_embed) if t is not None]
        if (
            self.training
            or torch.compiler.is_compiling()
            or torch.jit.is_tracing()
            or (torch.is_grad_enabled() and any(t.requires_grad for t in bases))
            or any(type(t) not in (nn.Parameter, Tensor) or t.is_meta for t in bases)  # no values to read
        ):
            return self.resized(patch, grid, resize)
        key = (patch, grid, resize, self.filter, self.position_filter)
        return self._kept.get(key, bases, lambda: self.resized(patch, grid, resize), frozen=self._view is not None)

    def _patches(self, images: Tensor, grid: Grid, resize: str) -> tuple[Tensor, Tensor | None]:
        """Patch tokens `[B, h*w, D]` before positions, and the positions of the grid."""
        patch = patch_size((images.shape[-2], images.shape[-1]), grid)
        kernel, positions = self._cached(patch, grid, resize)
        tokens = embed_patches(images.to(kernel.dtype), kernel, self.trunk.patch_embed.proj.bias)
        return self.trunk.patch_embed.norm(tokens), positions

    @torch.no_grad()
    def fixed_at_native_grid(self) -> FlexiBackbone:
        """Make kernel and positions of the native grid the base buffers, as a model of that one patch size has them.

        Of a larger buffer a training at one grid determines only what that grid's kernel is made of. The rest is the
        noise of its start, which would come back at every other grid.

        Example: `build_backbone("vit_nano_g8").fixed_at_native_grid().base_kernel.shape  # [128, 3, 15, 15]`
        """
        kernel, positions = self.resized(patch_size(self.image_size, self.native_grid), self.native_grid, "pi")
        self.trunk.patch_embed.proj.weight = nn.Parameter(kernel.clone())
        if positions is not None:
            self.trunk.pos_embed = nn.Parameter(positions.clone())
            self.position_grid = self.native_grid
        return self

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> float:
        """Measure the mean patch-token norm at the native grid, as the `norm` resize needs it."""
        images = self.normalise(images)
        tokens, _ = self._patches(images, self.native_grid, "pi")
        self.token_norm = tokens.float().norm(dim=-1).mean()
        return float(self.token_norm)

    def tokens(self, images: Tensor, grid: Size, resize: str | None = None) -> Tensor:
        """Input of the first block: prefix and patch tokens with positions, `[B, P + h*w, D]`."""
        grid, resize = as_pair(grid), resize or (self._view or {}).get("resize") or self.resize
        if resize not in METHODS:
            raise ValueError(f"no resize method {resize!r}; there are: {', '.join(METHODS)}")
        channels = self.base_kernel.shape[1]
        if images.ndim != 4 or images.shape[1] != channels:
            raise ValueError(f"images must be [B, {channels}, H, W], not {list(images.shape)}")
        x, positions = self._patches(self.normalise(images), grid, resize)
        if resize == "norm":
            if self.token_norm is None:
                raise ValueError("resize method 'norm' needs backbone.calibrate(images) first")
            x = x * (self.token_norm / x.norm(dim=-1, keepdim=True).clamp_min(1e-12)).to(x.dtype)
        trunk, batch = self.trunk, x.shape[0]
        special = (trunk.cls_token, getattr(trunk, "dist_token", None), trunk.reg_token)
        prefix = [t.expand(batch, -1, -1) for t in special if t is not None]
        if positions is not None and positions.shape[1] == x.shape[1]:
            x = torch.cat([*prefix, x + positions], dim=1) if prefix else x + positions
        else:
            x = torch.cat([*prefix, x], dim=1) if prefix else x
            x = x + positions if positions is not None else x
        return trunk.norm_pre(trunk.pos_drop(x))

    def encode(self, x: Tensor, grid: Grid, taps: Sequence[int] = ()) -> tuple[Tensor, list[Tensor]]:
        """All blocks and the final norm over tokens `[B, P + h*w, D]`; the part worth compiling.

        Returns: the tokens, and those after the blocks `taps`, before the final norm.
        """
        rope = self._rotary(grid) if isinstance(self.trunk, Eva) else None
        mixed = getattr(self.trunk, "rope_mixed", False) and rope is not None
        tapped = {}
        for i, block in enumerate(self.trunk.blocks):
            more: dict[str, Any] = {} if rope is None else {"rope": rope[i] if mixed else rope}
            if self.grad_checkpointing and self.training and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False, **more)
            else:
                x = block(x, **more)
            if i in taps:
                tapped[i] = x
        return self.trunk.norm(x), [tapped[i] for i in taps]

    def _rotary(self, grid: Grid) -> Tensor | None:
        rope: Any = self.trunk.rope
        if rope is None:
            return None
        if getattr(rope, "_use_cached_embed", False):
            if grid == tuple(rope.feat_shape):
                return rope.get_embed()
            rope = copy.deepcopy(rope)  # the trunk's own stays at its native grid
            rope.update_feat_shape(list(grid))
            return rope.get_embed()
        return rope.get_embed(shape=grid)

    def forward(
        self, images: Tensor, grid: Size, resize: str | None = None, taps: int | Sequence[int] = ()
    ) -> Features:
        """Encode images at a grid.

        Args:
            images: uint8 `[B, C, H, W]`, or float already normalised.
            grid: tokens per side, int or (h, w); must divide the image.
            resize: kernel resize method of this call, before that of a bound view and the encoder's own.
            taps: blocks whose maps are given too: numbers from 0 (negative from the end), or how many of the last.

        Raises: ValueError for a grid that does not divide, naming those that do; IndexError for a block beyond the end.

        Example: `encoder(images, 15, taps=(2, 5, 8, 11)).taps[2].shape  # [B, 15, 15, D]`
        """
        grid, blocks = as_pair(grid), self._blocks(taps)
        x, tapped = self.encode(self.tokens(images, grid, resize), grid, blocks)
        prefix = self.trunk.num_prefix_tokens
        return Features(
            pooled=self.trunk.forward_head(x, pre_logits=True),
            map=x[:, prefix:].unflatten(1, grid),
            prefix=x[:, :prefix],
            cls=x[:, 0] if self.trunk.cls_token is not None else None,
            taps={i: t[:, prefix:].unflatten(1, grid) for i, t in zip(blocks, tapped, strict=True)},
        )

    def _blocks(self, which: int | Sequence[int]) -> list[int]:
        """Numbers of blocks from 0: the last `which`, or those named, negative from the end."""
        depth = len(self.trunk.blocks)
        if isinstance(which, int):
            which = range(depth - which, depth)
        if wrong := [i for i in which if not -depth <= i < depth]:
            raise IndexError(f"no block {wrong[0]}; the encoder has {depth}, numbered from 0")
        return [i % depth for i in which]

    # what users of timm expect of a ViT; the grid is by default the native one

    def forward_features(self, images: Tensor, grid: Size | None = None) -> Tensor:
        """All tokens after the final norm, `[B, P + h*w, D]`, as timm's method of this name.

        Example: `encoder.head(encoder.forward_head(encoder.forward_features(images, 8), pre_logits=True))`
        """
        grid = as_pair(grid or self.native_grid)
        return self.encode(self.tokens(images, grid), grid)[0]

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """Pooled features `[B, D]` of all tokens, or the upstream logits `[B, C]`."""
        return self.trunk.forward_head(tokens, pre_logits=pre_logits)

    def forward_intermediates(
        self,
        images: Tensor,
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        grid: Size | None = None,
    ) -> Any:
        """Final tokens and those after some blocks, as timm's method of this name.

        Args: indices: how many of the last blocks, or their numbers; None: all. norm: with the final norm.
            output_fmt: `NCHW` or `NLC`.

        Returns: `(tokens, [maps])`, or the maps alone; with `return_prefix_tokens` each map with its prefix tokens.
        """
        grid = as_pair(grid or self.native_grid)
        if output_fmt not in ("NCHW", "NLC"):
            raise ValueError(f"output_fmt is NCHW or NLC, not {output_fmt!r}")
        blocks = self._blocks(len(self.trunk.blocks) if indices is None else indices)
        tokens, tapped = self.encode(self.tokens(images, grid), grid, blocks)
        prefix, given = self.trunk.num_prefix_tokens, []
        for inner in (self.trunk.norm(t) if norm else t for t in tapped):
            patches = inner[:, prefix:]
            if output_fmt == "NCHW":
                patches = patches.unflatten(1, grid).permute(0, 3, 1, 2).contiguous()
            given.append((patches, inner[:, :prefix]) if return_prefix_tokens else patches)
        return given if intermediates_only else (tokens, given)

    def get_intermediate_layers(
        self,
        images: Tensor,
        n: int | Sequence[int] = 1,
        reshape: bool = False,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        grid: Size | None = None,
    ) -> Any:
        """Tokens after the last `n` blocks, or after those named, as DINO's method of this name.

        Example: `encoder.get_intermediate_layers(images, 4, reshape=True, grid=8)  # four maps [B, D, 8, 8]`
        """
        return self.forward_intermediates(
            images, n, return_prefix_tokens, norm, "NCHW" if reshape else "NLC", intermediates_only=True, grid=grid
        )

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the blocks' activations again in the backward pass instead of keeping them."""
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay leaves alone."""
        return {f"trunk.{name}" for name in self.trunk.no_weight_decay()}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns by which timm's `param_groups_layer_decay` sorts parameters into layers."""

        def inside(pattern: Any) -> Any:
            if isinstance(pattern, str):
                return rf"^trunk\.(?:{pattern.replace('^', '')})"
            if isinstance(pattern, list):
                return [(inside(name), number) for name, number in pattern]
            return pattern

        return {name: inside(pattern) for name, pattern in self.trunk.group_matcher(coarse).items()}

    @property
    def num_classes(self) -> int:
        """Outputs of the upstream classifier; 0 without."""
        return self.trunk.num_classes

    def get_classifier(self) -> nn.Module:
        """The upstream classifier; `nn.Identity` without."""
        return self.trunk.head

    def reset_classifier(self, num_classes: int) -> None:
        """A new classifier, as timm makes one; 0 removes it."""
        self.trunk.reset_classifier(num_classes)

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """What timm's `resolve_data_config(model=encoder)` reads: input size, mean, std, interpolation, crop."""
        own = getattr(self.trunk, "pretrained_cfg", None) or {"interpolation": "bilinear", "crop_pct": 240 / 272}
        return {
            "crop_mode": "center", **own, "input_size": (self.base_kernel.shape[1], *self.image_size),
            "mean": self.normalisation.mean, "std": self.normalisation.std, "num_classes": self.num_classes,
            "first_conv": "trunk.patch_embed.proj", "classifier": "trunk.head",
        }  # fmt: skip

    default_cfg = pretrained_cfg

    def preprocess(self, picture: Image) -> Tensor:
        """A PIL picture resized, cropped to `image_size` and normalised, `[C, H, W]`, as it was for the weights.

        Example: `encoder(encoder.preprocess(Image.open("dog.jpg"))[None], grid=8)`
        """
        transform = create_transform(**resolve_data_config({}, model=self))
        return transform(picture.convert("RGB")).to(self.dtype)
