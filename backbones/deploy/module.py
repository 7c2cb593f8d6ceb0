"""`deploy(encoder, grid)`: kernel and positions of one grid baked into a plain model."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from timm.models.eva import Eva
from torch import Tensor, nn

from backbones.contract import Features
from backbones.encoder import Encoder
from backbones.flexible import FlexiBackbone, classifier
from backbones.grids import Grid, Size, as_pair, patch_size

OUTPUTS = ("logits", "pooled", "map", "prefix")
CLOSE = 1e-5  # max |a - b| / max |b|, in float32


class ToNorm(nn.Module):
    """Scales tokens to one norm, as the resize method `norm` does."""

    def __init__(self, norm: float):
        super().__init__()
        self.norm = norm

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens * (self.norm / tokens.norm(dim=-1, keepdim=True).clamp_min(1e-12))


class FixedRotary(nn.Module):
    """Rotary positions of one grid, computed once."""

    def __init__(self, rope: nn.Module, embed: Tensor, grid: Grid):
        super().__init__()
        self.rope, self.feat_shape = rope, list(grid)  # `rope` may have weights that a timm state must keep
        self.register_buffer("embed", embed.detach().clone(), persistent=False)

    def get_embed(self, shape: object = None, dtype: torch.dtype | None = None) -> Tensor:
        embed = cast(Tensor, self.embed)
        return embed if dtype is None else embed.to(dtype)


@torch.no_grad()
def fixed_trunk(encoder: FlexiBackbone, grid: Size, image_size: Size, resize: str) -> nn.Module:
    """The timm model that computes what `encoder` computes at a grid of pictures of one size, and nothing else.

    Raises: ValueError for a grid that does not divide, or a resize method that needs calibration and has none.
    """
    grid, side = as_pair(grid), as_pair(image_size)
    patch = patch_size(side, grid)
    kernel, positions = encoder.resized(patch, grid, resize)
    fixed: Any = copy.deepcopy(encoder.trunk)
    embed = fixed.patch_embed
    old = embed.proj
    embed.proj = nn.Conv2d(
        old.in_channels, old.out_channels, patch, patch, bias=old.bias is not None, device=kernel.device,
        dtype=kernel.dtype,
    )  # fmt: skip
    embed.proj.weight.copy_(kernel)
    if old.bias is not None:
        embed.proj.bias.copy_(old.bias)
    embed.patch_size, embed.img_size, embed.grid_size = patch, side, grid
    embed.num_patches, embed.flatten, embed.strict_img_size = grid[0] * grid[1], True, True
    embed.dynamic_img_pad = fixed.dynamic_img_size = False
    if resize == "norm":
        if encoder.token_norm is None:
            raise ValueError("resize method 'norm' needs backbone.calibrate(images) first")
        embed.norm = nn.Sequential(embed.norm, ToNorm(float(encoder.token_norm)))
    if positions is not None:
        fixed.pos_embed = nn.Parameter(positions.clone())
    if isinstance(fixed, Eva) and fixed.rope is not None:
        fixed.rope = FixedRotary(fixed.rope, cast(Tensor, encoder._rotary(grid)), grid)
    return fixed


class FixedEncoder(Encoder):
    """A backbone at one grid: `encoder(images) -> Features`. Of a ViT it holds the plain timm model as `trunk`.

    Of any other backbone it holds that backbone, and calls it at the grid.
    """

    def __init__(self, encoder: Encoder, grid: Size, image_size: Size | None = None, resize: str | None = None):
        side, grid = as_pair(image_size or encoder.image_size), as_pair(grid)
        super().__init__(encoder.normalisation, side, grid)
        self.resize = resize or getattr(encoder, "resize", None)
        self.embed_dim, self.flexible = encoder.embed_dim, False
        self.inner: Any = None
        self.trunk: Any = None
        if isinstance(encoder, FlexiBackbone):
            self.trunk = fixed_trunk(encoder, grid, side, self.resize or encoder.resize)
        else:
            patch_size(side, grid)
            self.inner = copy.deepcopy(encoder)
        self._set_normalisation(next((p.device for p in encoder.parameters()), None))

    @property
    def head(self) -> nn.Module | None:
        return self.inner.head if self.trunk is None else classifier(self.trunk)

    @property
    def dtype(self) -> torch.dtype:
        trunk: Any = self._modules.get("trunk")
        return super().dtype if trunk is None else trunk.patch_embed.proj.weight.dtype

    def forward(self, images: Tensor, grid: Size | None = None) -> Features:
        if grid is not None and as_pair(grid) != self.native_grid:
            raise ValueError(f"deployed at grid {self.native_grid}, not {as_pair(grid)}")
        if self.trunk is None:
            return self.inner(images, self.native_grid, **({"resize": self.resize} if self.resize else {}))
        tokens, prefix = self.trunk.forward_features(self.normalise(images)), self.trunk.num_prefix_tokens
        return Features(
            pooled=self.trunk.forward_head(tokens, pre_logits=True),
            map=tokens[:, prefix:].unflatten(1, self.native_grid),
            prefix=tokens[:, :prefix],
            cls=tokens[:, 0] if self.trunk.cls_token is not None else None,
        )


class Deployed(nn.Module):
    """A backbone at one grid with its classifier: `model(images)` gives tensors that any exporter takes.

    Images are uint8 `[B, C, H, W]` as decoded, or, where normalisation is not included, float and normalised. One
    output is a tensor, several are a tuple in the order of `outputs`: `logits` [B, K], `pooled` [B, D],
    `map` [B, h, w, D], `prefix` [B, P, D].
    """

    def __init__(self, encoder: FixedEncoder, head: nn.Module | None, outputs: tuple[str, ...], normalised: bool):
        super().__init__()
        self.encoder = encoder
        self.head: Any = head
        self.outputs, self.normalised = outputs, normalised
        self.metadata: dict[str, Any] = {}

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        features = self.encoder(images)
        given = tuple(
            self.head(features.pooled) if name == "logits" else getattr(features, name) for name in self.outputs
        )
        return given[0] if len(given) == 1 else given

    def example(self, batch: int = 2) -> Tensor:
        """Images of the form that it takes, drawn at random; as an exporter wants them."""
        channels, device = len(self.encoder.normalisation.mean), self.encoder._mean.device
        shape = (batch, channels, *self.encoder.image_size)
        if self.normalised:
            return torch.randn(shape, device=device, generator=_generator(device)).to(self.encoder.dtype)
        return torch.randint(0, 256, shape, dtype=torch.uint8, device=device, generator=_generator(device))


class DeployedModel(Deployed):
    """A whole model `(images, grid) -> tensor` at one grid, its backbone replaced by the plain one."""

    def __init__(self, encoder: FixedEncoder, model: nn.Module, output: str, normalised: bool):
        super().__init__(encoder, None, (output,), normalised)
        self.model = model
        del self.encoder  # it lives in the model alone
        self.__dict__["encoder"] = encoder

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images, self.encoder.native_grid)


def _generator(device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(0)


def deploy(
    encoder: nn.Module,
    grid: Size,
    *,
    image_size: Size | None = None,
    resize: str | None = None,
    head: nn.Module | None = None,
    outputs: Sequence[str] | None = None,
    normalised: bool = False,
    classes: Sequence[str] = (),
    **notes: Any,
) -> Deployed:
    """A backbone at one grid as a plain module for `torch.export`, ONNX, `torch.jit.trace` or timm.

    What it gives is compared with what the backbone gives.

    Args:
        encoder: a backbone.
        grid: tokens per side; must divide the image.
        image_size: pixels, by default those of the encoder.
        resize: kernel resize method, by default the encoder's own.
        head: `head(pooled)` are logits; by default the upstream classifier, where there is one.
        outputs: among `logits`, `pooled`, `map`, `prefix`; by default the logits, without a head the pooled features.
        normalised: images come normalised; else the module takes uint8 and normalises itself.
        classes, notes: kept in `metadata`, which exported files carry.

    Raises: ValueError for a grid that does not divide, an output that there is not, or outputs that differ.

    Example: `torch.export.export(deploy(encoder, 12), (images,))`
    """
    if not isinstance(encoder, Encoder):
        raise ValueError(f"{type(encoder).__name__} is no backbone; build_backbone(name) gives one")
    training = encoder.training
    encoder.eval()
    head = encoder.head if head is None else head
    names = tuple(outputs) if outputs is not None else ("logits",) if head is not None else ("pooled",)
    if wrong := [n for n in names if n not in OUTPUTS]:
        raise ValueError(f"no output {wrong[0]!r}; there are: {', '.join(OUTPUTS)}")
    if "logits" in names and head is None:
        raise ValueError("the backbone has no classifier for logits; pass head=, or outputs=('pooled',)")
    fixed = FixedEncoder(encoder, grid, image_size, resize)
    model = Deployed(fixed, copy.deepcopy(head), names, normalised).eval().requires_grad_(False)
    model.metadata = _metadata(fixed, names, normalised, classes, notes)
    if classes and "logits" in names:
        count = int(model.head(torch.zeros(1, fixed.embed_dim, dtype=fixed.dtype, device=fixed._mean.device)).shape[-1])
        if count != len(classes):
            raise ValueError(f"{len(classes)} classes for {count} logits")
    _compare(model, encoder)
    encoder.train(training)
    return model


def deploy_model(
    model: nn.Module, grid: Size, *, image_size: Size | None = None, resize: str | None = None, output: str = "logits",
    normalised: bool = False, **notes: Any,
) -> DeployedModel:  # fmt: skip
    """As `deploy`, of a model `(images, grid) -> tensor` that holds a backbone as `model.backbone`.

    Raises: ValueError for a model without a backbone, and as `deploy` does.

    Example: `deploy_model(Segmenter(encoder, "linear", 150), 30, image_size=480)`
    """
    held: Any = getattr(model, "backbone", None)
    encoder = getattr(held, "module", held)
    if not isinstance(encoder, Encoder):
        raise ValueError(f"{type(model).__name__} holds no backbone")
    training = model.training
    model.eval()
    fixed = FixedEncoder(encoder, grid, image_size, resize)
    holder: Any = model
    holder.backbone = None
    try:
        whole = copy.deepcopy(model)
    finally:
        holder.backbone = held
    whole.backbone = fixed
    made = DeployedModel(fixed, whole, output, normalised).eval().requires_grad_(False)
    made.metadata = _metadata(fixed, made.outputs, normalised, (), notes)
    _compare(made, encoder)
    model.train(training)
    return made


def _metadata(
    fixed: FixedEncoder, outputs: tuple[str, ...], normalised: bool, classes: Sequence[str], notes: dict[str, Any]
) -> dict[str, Any]:
    return {
        "grid": list(fixed.native_grid), "image_size": list(fixed.image_size),
        "patch": list(patch_size(fixed.image_size, fixed.native_grid)), "resize": fixed.resize,
        "mean": list(fixed.normalisation.mean), "std": list(fixed.normalisation.std),
        "input": "normalised float" if normalised else "uint8, RGB, channels first", "outputs": list(outputs),
        "classes": [str(c) for c in classes], "embed_dim": fixed.embed_dim, **notes,
    }  # fmt: skip


@torch.no_grad()
def _compare(model: Deployed, encoder: Encoder) -> None:
    """Raise ValueError where the plain module gives anything else than the backbone."""
    fixed = model.encoder
    images = model.example(1)
    more = {"resize": fixed.resize} if fixed.resize and "resize" in encoder.view_fields else {}
    expected, given = encoder(images, fixed.native_grid, **more), fixed(images)
    tolerance = CLOSE if fixed.dtype in (torch.float32, torch.float64) else 2e-2
    for name in ("pooled", "map"):
        error = relative_error(getattr(given, name), getattr(expected, name))
        if not error <= tolerance:
            raise ValueError(f"deployed at grid {fixed.native_grid}, {name} differs by {error:.1e}")


def relative_error(given: Tensor, expected: Tensor) -> float:
    """max |a - b| / max |b|."""
    given, expected = given.detach().double().cpu(), expected.detach().double().cpu()
    return float((given - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
