"""A student with its classifier, and the teacher that it starts from."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones import FlexiBackbone
from backbones.resize import resize_patch_kernel
from backbones.zoo.architecture import replace_head
from tasks.contract import Grid, TaskError
from tasks.contract.frozen import Frozen


class UpstreamModel(nn.Module):
    """The student's own classifier is its head: it belongs to the backbone that comes out.

    Args: classifier: of a backbone that can hold none.
    """

    def __init__(self, backbone: nn.Module, teacher: FlexiBackbone | None = None, classifier: nn.Linear | None = None):
        super().__init__()
        self.backbone, self.classifier = backbone, classifier
        self.teacher = None if teacher is None else Frozen(teacher)

    def forward(self, images: Tensor, grid: Grid) -> Tensor:
        """Images [B, 3, H, W] -> logits [B, K]."""
        head = self.backbone.head if self.classifier is None else self.classifier
        return head(self.backbone(images, grid).pooled)

    @torch.no_grad()
    def answers(self, images: Tensor) -> Tensor:
        """The teacher's logits [B, K] of its own pictures, at its native grid."""
        assert self.teacher is not None
        return self.teacher.head(self.teacher(images, self.teacher.native_grid).pooled)


def supervised(backbone: nn.Module, classes: int, bias: float) -> UpstreamModel:
    """A student with a zero classifier and its bias at `bias`; a classifier of as many classes that is not zero stays.

    A backbone of another kind than ours gets its classifier beside it.
    """
    if not isinstance(backbone, FlexiBackbone):
        classifier = nn.Linear(backbone.embed_dim, classes)
        nn.init.zeros_(classifier.weight)
        nn.init.constant_(classifier.bias, bias)
        return UpstreamModel(backbone, classifier=classifier)
    trunk = backbone.trunk
    if trunk.num_classes != classes:
        replace_head(trunk, classes)
    if not trunk.head.weight.any():
        nn.init.constant_(trunk.head.bias, bias)
    return UpstreamModel(backbone)


@torch.no_grad()
def initialise_from_teacher(student: FlexiBackbone, teacher: FlexiBackbone) -> None:
    """Teacher's weights: kernel PI-resized, positions by corner-aligned bilinear zoom (`flexi.vit.load`), rest as is.

    What differs in form is folded, which changes no output at the teacher's own patch: LayerScale into the projections
    before it, the position of the class token into that token, and the teacher's normalisation into the kernel.

    Raises: TaskError for the first weight that one lacks or that has another shape.

    Example: `initialise_from_teacher(build_backbone("flexivit_b_scratch", patch=16), teacher)`
    """
    state = copy.deepcopy(teacher.trunk.state_dict())
    for key in [k for k in state if k.endswith(".gamma")]:
        block, _, which = key.removesuffix(".gamma").rpartition(".")
        layer = f"{block}.attn.proj" if which == "ls1" else f"{block}.mlp.fc2"
        gamma = state.pop(key)
        state[f"{layer}.weight"] = state[f"{layer}.weight"] * gamma[:, None]
        state[f"{layer}.bias"] = state[f"{layer}.bias"] * gamma
    kernel, bias = _renormalised(student, teacher)
    state["patch_embed.proj.weight"] = resize_patch_kernel(kernel, tuple(student.base_kernel.shape[-2:]))
    state["patch_embed.proj.bias"] = bias
    height, width = teacher.position_grid
    prefix = teacher.trunk.pos_embed.shape[1] - height * width
    if prefix == 1 and "cls_token" in state:
        state["cls_token"] = state["cls_token"] + teacher.trunk.pos_embed[:, :1]
    planes = teacher.trunk.pos_embed[0, prefix:].unflatten(0, (height, width)).permute(2, 0, 1)[None]
    moved = F.interpolate(planes, size=student.position_grid, mode="bilinear", align_corners=True)
    state["pos_embed"] = moved[0].flatten(1).T[None]
    expected = student.trunk.state_dict()
    for key in {**expected, **state}:
        own, found = (tuple(s[key].shape) if key in s else "missing" for s in (expected, state))
        if own != found:
            raise TaskError(f"weight {key} is {found} in the teacher and {own} in the student")
    student.trunk.load_state_dict(state)


def _renormalised(student: FlexiBackbone, teacher: FlexiBackbone) -> tuple[Tensor, Tensor]:
    """The teacher's kernel and bias for pictures normalised as the student's: the same tokens in exact arithmetic."""
    kernel, bias = teacher.base_kernel.detach().clone(), teacher.trunk.patch_embed.proj.bias
    bias = torch.zeros(len(kernel), device=kernel.device) if bias is None else bias.detach().clone()
    if torch.equal(teacher._mean, student._mean) and torch.equal(teacher._std, student._std):
        return kernel, bias
    offset = (student._mean - teacher._mean) / teacher._std
    return kernel * (student._std / teacher._std), bias + (kernel * offset).sum((1, 2, 3))
