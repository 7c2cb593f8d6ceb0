"""Any timm ViT at any grid: the trunk is timm's, here is only what flexibility needs."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator

import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from backbones.features import Features, Normalisation
from backbones.grids import FILTERS, METHODS, Grid, Size, as_pair, patch_size
from backbones.patches import embed_patches
from backbones.resize import resize_patch_kernel, resize_position_embedding

# Fused optimizers change weights without moving their version counter, so each optimizer step moves this one.
_steps = 0


def _count_step(*_: object) -> None:
    global _steps
    _steps += 1


register_optimizer_step_post_hook(_count_step)


class FlexiBackbone(nn.Module):
    """A timm `VisionTransformer` or `Eva` that runs at any grid.

    The trunk's own patch kernel `[D, 3, h, w]` and positions are the base buffers; they are never overwritten, so
    `state_dict()` stays that of the timm model.

    Args:
        trunk: timm model, patch embedding a plain convolution.
        normalisation: mean and std of the weights, applied to uint8 input.
        image_size, native_grid: what the weights were made for; used by suites and calibration, not by `forward`.
        resize: kernel resize method (`backbones.resize.METHODS`) when a call names none.
        filter, position_filter: `bilinear` (official) or `bicubic`.

    Example::

        encoder = build_backbone("flexivit_nano")
        features = encoder(torch.zeros(2, 3, 120, 120, dtype=torch.uint8), grid=8)
    """

    def __init__(
        self,
        trunk: VisionTransformer | Eva,
        normalisation: Normalisation,
        image_size: Size | None = None,
        native_grid: Size | None = None,
        resize: str = "pi",
        filter: str = "bilinear",
        position_filter: str = "bilinear",
    ):
        super().__init__()
        if not isinstance(trunk, VisionTransformer | Eva):
            raise ValueError(
                f"{type(trunk).__name__} is not a timm VisionTransformer or Eva and cannot run at any grid"
            )
        if not isinstance(getattr(trunk.patch_embed, "proj", None), nn.Conv2d):
            raise ValueError(f"{type(trunk.patch_embed).__name__} is not a patch convolution: no kernel to resize")
        for value, known in ((resize, METHODS), (filter, FILTERS), (position_filter, FILTERS)):
            if value not in known:
                raise ValueError(f"no resize option {value!r}; there are: {', '.join(known)}")
        self.trunk = trunk
        self.normalisation = normalisation
        self.image_size = as_pair(image_size or trunk.patch_embed.img_size)
        self.native_grid = as_pair(native_grid or trunk.patch_embed.grid_size)
        self.position_grid = trunk.patch_embed.grid_size
        self.embed_dim = trunk.embed_dim
        self.resize, self.filter, self.position_filter = resize, filter, position_filter
        self.token_budget: int | None = None  # set by the runner; None: a batch is one chunk
        self.register_buffer("_mean", torch.tensor(normalisation.mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("_std", torch.tensor(normalisation.std).view(3, 1, 1) * 255, persistent=False)
        # `norm` method: mean token norm at the native grid; not a number of the weights, so not in the state dict
        self.register_buffer("token_norm", None, persistent=False)
        self._cache: dict[tuple, tuple[Tensor, Tensor | None]] = {}

    # what changes weights drops the cache
    def train(self, mode: bool = True) -> FlexiBackbone:
        self.drop_cache()
        return super().train(mode)

    def _apply(self, *args, **kwargs) -> FlexiBackbone:
        self.drop_cache()
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        self.drop_cache()
        super()._load_from_state_dict(*args, **kwargs)

    def drop_cache(self) -> None:
        """Forget resized kernels and positions."""
        self._cache = {}

    @property
    def head(self) -> nn.Module | None:
        """The upstream classifier, `head(features.pooled)`, or None."""
        return None if isinstance(self.trunk.head, nn.Identity) else self.trunk.head

    @property
    def base_kernel(self) -> nn.Parameter:
        """The stored patch kernel `[D, 3, h, w]`."""
        return self.trunk.patch_embed.proj.weight

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 `[B, 3, H, W]` to the float input of the weights; float input passes (already normalised)."""
        if images.is_floating_point():
            return images
        if images.dtype != torch.uint8:
            raise ValueError(f"images must be uint8, or float when already normalised, not {images.dtype}")
        return (images.float() - self._mean.float()).div_(self._std.float())

    def resized(self, patch: Grid, grid: Grid, resize: str) -> tuple[Tensor, Tensor | None]:
        """Kernel `[D, 3, ph, pw]` and positions `[1, P + h*w, D]` (P = 0 where prefixes have none)."""
        kernel = resize_patch_kernel(self.base_kernel, patch, resize, self.filter)
        positions = self.trunk.pos_embed
        if positions is not None:
            prefix = positions.shape[1] - self.position_grid[0] * self.position_grid[1]
            base = positions[0, prefix:].unflatten(0, self.position_grid)
            moved = resize_position_embedding(base, grid, self.position_filter).flatten(0, 1)[None]
            positions = torch.cat([positions[:, :prefix], moved], dim=1) if prefix else moved
        return kernel, positions

    def _cached(self, patch: Grid, grid: Grid, resize: str) -> tuple[Tensor, Tensor | None]:
        weights = [t for t in (self.base_kernel, self.trunk.pos_embed) if t is not None]
        if self.training or (torch.is_grad_enabled() and any(t.requires_grad for t in weights)):
            return self.resized(patch, grid, resize)
        if any(t.is_inference() for t in weights):
            return self.resized(patch, grid, resize)  # inference tensors have no version to key on
        key = (patch, grid, resize, _steps, *((t.data_ptr(), t._version, t.dtype) for t in weights))
        if key not in self._cache:
            stale = [k for k in self._cache if k[3:] != key[3:]]
            for k in stale:
                del self._cache[k]
            # a tensor made under inference_mode could never be used by autograd later
            with torch.inference_mode(False), torch.no_grad():
                self._cache[key] = self.resized(patch, grid, resize)
        return self._cache[key]

    def _patches(self, images: Tensor, grid: Grid, resize: str) -> tuple[Tensor, Tensor | None]:
        """Patch tokens `[B, h*w, D]` before positions, and the positions of the grid."""
        patch = patch_size((images.shape[-2], images.shape[-1]), grid)
        kernel, positions = self._cached(patch, grid, resize)
        tokens = embed_patches(images, kernel.to(images.dtype), self.trunk.patch_embed.proj.bias)
        return self.trunk.patch_embed.norm(tokens), positions

    @torch.no_grad()
    def fixed_at_native_grid(self) -> FlexiBackbone:
        """Make kernel and positions of the native grid the base buffers, as a model of that one patch size has them.

        What a larger buffer holds beyond the native patch was never trained, and must not come back at larger patches.

        Example: `build_backbone("vit_nano_g8").fixed_at_native_grid().base_kernel.shape  # [128, 3, 15, 15]`
        """
        kernel, positions = self.resized(patch_size(self.image_size, self.native_grid), self.native_grid, "pi")
        self.trunk.patch_embed.proj.weight = nn.Parameter(kernel.clone())
        if positions is not None:
            self.trunk.pos_embed = nn.Parameter(positions.clone())
            self.position_grid = self.native_grid
        self.drop_cache()
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
        grid, resize = as_pair(grid), resize or self.resize
        if resize not in METHODS:
            raise ValueError(f"no resize method {resize!r}; there are: {', '.join(METHODS)}")
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be [B, 3, H, W], not {list(images.shape)}")
        x, positions = self._patches(self.normalise(images), grid, resize)
        if resize == "norm":
            if self.token_norm is None:
                raise ValueError("resize method 'norm' needs backbone.calibrate(images) first")
            x = x * (self.token_norm / x.norm(dim=-1, keepdim=True).clamp_min(1e-12)).to(x.dtype)
        trunk, batch = self.trunk, len(x)
        prefix = [t.expand(batch, -1, -1) for t in (trunk.cls_token, trunk.reg_token) if t is not None]
        if positions is not None and positions.shape[1] == x.shape[1]:
            x = torch.cat([*prefix, x + positions], dim=1) if prefix else x + positions
        else:
            x = torch.cat([*prefix, x], dim=1) if prefix else x
            x = x + positions if positions is not None else x
        return trunk.norm_pre(trunk.pos_drop(x))

    def encode(self, x: Tensor, grid: Grid) -> Tensor:
        """All blocks and the final norm over tokens `[B, P + h*w, D]`; the part worth compiling."""
        if isinstance(self.trunk, VisionTransformer):
            return self.trunk.norm(self.trunk.blocks(x))
        rope = self._rotary(grid)
        mixed = getattr(self.trunk, "rope_mixed", False) and rope is not None
        for i, block in enumerate(self.trunk.blocks):
            x = block(x, rope=rope[i] if mixed else rope)
        return self.trunk.norm(x)

    def _rotary(self, grid: Grid) -> Tensor | None:
        rope = self.trunk.rope
        if rope is None:
            return None
        if getattr(rope, "_use_cached_embed", False):
            if grid == tuple(rope.feat_shape):
                return rope.get_embed()
            rope = copy.deepcopy(rope)  # the trunk's own stays at its native grid
            rope.update_feat_shape(list(grid))
            return rope.get_embed()
        return rope.get_embed(shape=grid)

    def forward(self, images: Tensor, grid: Size, resize: str | None = None) -> Features:
        """Encode images at a grid.

        Args:
            images: uint8 `[B, 3, H, W]`, or float already normalised.
            grid: tokens per side, int or (h, w); must divide the image.
            resize: kernel resize method of this call.

        Raises: ValueError for a grid that does not divide, naming those that do.
        """
        grid = as_pair(grid)
        x = self.encode(self.tokens(images, grid, resize), grid)
        prefix = self.trunk.num_prefix_tokens
        return Features(
            pooled=self.trunk.forward_head(x, pre_logits=True),
            map=x[:, prefix:].unflatten(1, grid),
            prefix=x[:, :prefix],
            cls=x[:, 0] if self.trunk.cls_token is not None else None,
        )

    def chunks(self, images: Tensor, grid: Size) -> Iterator[Tensor]:
        """Cut a batch so that a chunk stays within the token budget."""
        grid = as_pair(grid)
        size = max(1, (self.token_budget or len(images) * grid[0] * grid[1]) // (grid[0] * grid[1]))
        yield from images.split(size)

    def weights_hash(self) -> str:
        """First 16 hex digits of the SHA-256 over names, shapes and values of all weights."""
        digest = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]
