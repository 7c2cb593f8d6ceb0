"""One architecture at one grid as several libraries run it, with equal weights where they can carry them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from backbones.flexible import FlexiBackbone
from backbones.grids import Grid, patch_size

TOLERANCE = 1e-4  # float32, eager; sums in another order
COMPILED_TOLERANCE = 1e-3  # a compiler also replaces the functions themselves


@dataclass(frozen=True)
class Contender:
    """`call(images)` takes normalised float `[B, 3, H, W]` and gives pooled features `[B, D]`."""

    name: str
    model: nn.Module
    call: Callable[[Tensor], Tensor]


def fixed_vit(encoder: FlexiBackbone, grid: Grid) -> VisionTransformer:
    """A plain timm ViT of the encoder's shape that knows one grid only, with its kernel and positions resized to it.

    Raises: ValueError for a grid that does not divide the image, or a trunk that is no `VisionTransformer`.

    Example: `fixed_vit(build_backbone("flexivit_nano"), (8, 8))(torch.zeros(1, 3, 120, 120))  # [1, 128]`
    """
    if not isinstance(getattr(encoder, "trunk", None), VisionTransformer):
        raise ValueError(f"{type(encoder).__name__} holds no timm VisionTransformer: nothing to compare its speed with")
    patch = patch_size(encoder.image_size, grid)
    fixed, old = copy.deepcopy(encoder.trunk), encoder.trunk.patch_embed
    device = encoder.base_kernel.device
    fixed.patch_embed = PatchEmbed(encoder.image_size, patch, 3, encoder.embed_dim, bias=old.proj.bias is not None)
    fixed.patch_embed.norm = copy.deepcopy(old.norm)
    fixed.patch_embed.to(device)
    fixed.dynamic_img_size = False
    fixed.head = nn.Identity()
    with torch.no_grad():
        kernel, positions = encoder.resized(patch, grid, encoder.resize)
        fixed.patch_embed.proj.weight.copy_(kernel)
        if old.proj.bias is not None:
            fixed.patch_embed.proj.bias.copy_(old.proj.bias)
        if positions is not None:
            fixed.pos_embed = nn.Parameter(positions.clone())
    return fixed


def transformers_vit(encoder: FlexiBackbone, grid: Grid) -> nn.Module:
    """transformers' `ViTModel` of the encoder's width, depth, heads and MLP at a grid; its weights are random.

    Example: `transformers_vit(build_backbone("flexivit_nano"), (8, 8))`
    """
    from transformers import ViTConfig, ViTModel

    block = encoder.trunk.blocks[0]
    return ViTModel(
        ViTConfig(
            hidden_size=encoder.embed_dim,
            num_hidden_layers=len(encoder.trunk.blocks),
            num_attention_heads=block.attn.num_heads,
            intermediate_size=block.mlp.fc1.out_features,
            hidden_act="gelu_pytorch_tanh" if "Tanh" in type(block.mlp.act).__name__ else "gelu",
            image_size=encoder.image_size,
            patch_size=patch_size(encoder.image_size, grid),
        ),
        add_pooling_layer=False,
    ).to(encoder.base_kernel.device)


def eager(encoder: FlexiBackbone, grid: Grid) -> list[Contender]:
    """Ours and timm's, on copies of one set of weights, so that training one leaves the other alone.

    Example: `ours, theirs = eager(build_backbone("flexivit_nano"), (8, 8))`
    """
    ours, fixed = copy.deepcopy(encoder), fixed_vit(encoder, grid)
    return [Contender("ours", ours, lambda images: ours(images, grid).pooled), Contender("timm", fixed, fixed)]


def compiled(encoder: FlexiBackbone, grid: Grid) -> list[Contender]:
    """As `eager`, by `torch.compile`: all of timm's model; of ours the blocks, where the time goes.

    Example: `ours, theirs = compiled(build_backbone("flexivit_nano"), (8, 8))`
    """
    torch._dynamo.reset()  # each grid is compiled for its own shapes, and none counts against the recompile limit
    ours, fixed = copy.deepcopy(encoder), fixed_vit(encoder, grid)
    ours.encode = torch.compile(ours.encode, dynamic=False)
    return [
        Contender("ours compiled", ours, lambda images: ours(images, grid).pooled),
        Contender("timm compiled", fixed, torch.compile(fixed, dynamic=False)),
    ]


def checked(contenders: list[Contender], expected: Tensor, images: Tensor, tolerance: float) -> None:
    """Compare each output with the expected one.

    Raises: ValueError with the contender's name and the largest difference: other numbers, no comparison of speed.
    """
    for contender in contenders:
        found = contender.call(images)
        if not torch.allclose(found, expected, rtol=tolerance, atol=tolerance):
            worst = float((found - expected).abs().max())
            raise ValueError(f"outputs of {contender.name} differ by up to {worst:.2g}: nothing was timed")


def build(
    encoder: FlexiBackbone, grid: Grid, images: Tensor, compile: bool = True
) -> tuple[list[Contender], list[str]]:
    """All contenders of a grid in evaluation mode, with notes on those that could not be had.

    Args:
        images: normalised float `[B, 3, H, W]` on which outputs must agree.

    Raises: ValueError for outputs that differ.

    Example: `build(encoder.eval(), (8, 8), torch.randn(2, 3, 120, 120), compile=False)`
    """
    found, notes = eager(encoder, grid), []
    expected = encoder(images, grid).pooled
    checked(found, expected, images, TOLERANCE)
    if compile:
        pair = compiled(encoder, grid)
        try:
            checked(pair, expected, images, COMPILED_TOLERANCE)
            found += pair
        except (RuntimeError, torch._dynamo.exc.TorchDynamoException) as error:  # no C++ compiler, most often
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            notes.append(f"grid {grid[0]}: torch.compile failed, nothing compiled was timed: {first[:160]}")
    else:
        notes.append("torch.compile was not asked for (--no-compile)")
    hugging_face = transformers_vit(encoder, grid).eval()
    # the class token, as ours gives it
    found.append(Contender("transformers", hugging_face, lambda images: hugging_face(images).last_hidden_state[:, 0]))
    return found, notes
