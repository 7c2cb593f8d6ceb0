"""Distillation by function matching (as FlexiViT's; big_vision `trainers/proj/flexi/distill.py`)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from backbones import FlexiBackbone
from backbones.grids import GridSchedule
from backbones.resize import resize_patch_kernel
from benchmarks.finetune import open_checkpoint
from benchmarks.pretrain import augment, learning_rate, parameter_groups
from benchmarks.pretrain_data import Pictures
from benchmarks.pretrain_recipes import Recipe
from benchmarks.store import write_atomically


def kl_divergence(teacher: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """`t^2 * sum p_t (log p_t - log p_s)` of logits `[B, K]`, `[B]`; not averaged (their `kl` at temperature t)."""
    own = F.log_softmax(teacher / temperature, dim=-1)
    other = F.log_softmax(student / temperature, dim=-1)
    return temperature**2 * (own.exp() * (own - other)).sum(-1)


def sigmoid_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Summed over the classes: `[B, K]` twice to `[B]` (their `sigmoid_xent`)."""
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(-1)


def mixup(generator: np.random.Generator, strength: float, *batches: Tensor) -> tuple[Tensor, ...]:
    """`a*x + (1-a)*roll(x, 1)` with one a = max(b, 1-b), b ~ Beta(strength, strength), for all batches alike."""
    drawn = generator.beta(strength, strength) if strength > 0 else 1.0
    return mix(max(drawn, 1 - drawn), *batches)


def mix(share: float, *batches: Tensor) -> tuple[Tensor, ...]:
    """Mix each batch with itself moved on by one, `share` of the picture's own."""
    return tuple(share * x + (1 - share) * x.roll(1, 0) for x in batches)


def optimizer(model: torch.nn.Module, constants: Recipe) -> torch.optim.AdamW:
    """AdamW with big_vision's decay on kernels; the schedule multiplies `lr`, and with it the decay."""
    groups = parameter_groups(model, constants.torch_decay)
    betas = (constants.beta1, constants.beta2)
    return torch.optim.AdamW(groups, lr=constants.learning_rate, betas=betas, eps=constants.epsilon)


@torch.no_grad()
def initialise_from_teacher(student: FlexiBackbone, teacher: FlexiBackbone) -> None:
    """Teacher's weights: kernel PI-resized, positions by corner-aligned bilinear zoom (`flexi.vit.load`), rest as is.

    LayerScale of a timm teacher is folded into the projections before it, which changes no output.

    Raises: ValueError for another normalisation, or the first weight that one lacks or that has another shape.
    """
    for name in ("_mean", "_std"):
        if not torch.equal(getattr(teacher, name), getattr(student, name)):
            raise ValueError("teacher and student normalise pictures differently; the teacher's weights would not fit")
    state = copy.deepcopy(teacher.trunk.state_dict())
    for key in [k for k in state if k.endswith(".gamma")]:
        block, _, which = key.removesuffix(".gamma").rpartition(".")
        layer = f"{block}.attn.proj" if which == "ls1" else f"{block}.mlp.fc2"
        gamma = state.pop(key)
        state[f"{layer}.weight"] = state[f"{layer}.weight"] * gamma[:, None]
        state[f"{layer}.bias"] = state[f"{layer}.bias"] * gamma
    state["patch_embed.proj.weight"] = resize_patch_kernel(teacher.base_kernel, tuple(student.base_kernel.shape[-2:]))
    planes = teacher.trunk.pos_embed[0].unflatten(0, teacher.position_grid).permute(2, 0, 1)[None]
    moved = F.interpolate(planes, size=student.position_grid, mode="bilinear", align_corners=True)
    state["pos_embed"] = moved[0].flatten(1).T[None]
    expected = student.trunk.state_dict()
    for key in {**expected, **state}:
        own, found = (tuple(s[key].shape) if key in s else "missing" for s in (expected, state))
        if own != found:
            raise ValueError(f"weight {key} is {found} in the teacher and {own} in the student")
    student.trunk.load_state_dict(state)
    student.drop_cache()


def distill(
    student: FlexiBackbone,
    teacher: FlexiBackbone,
    pictures: Pictures,
    schedule: GridSchedule,
    constants: Recipe,
    steps: int,
    checkpoint: Path,
    seed: int = 0,
    report: Callable[[str], None] = print,
) -> float:
    """Train the student at the schedule's grids on the frozen teacher's answers. Returns the last smoothed loss.

    Both see the same crop, flip and mixture, each at its own size; labels are not used. Continues from `checkpoint`.
    Batch, crop and mixture are functions of (seed, step). Raises ValueError where the loss is not finite.
    """
    device, total, batch, first = student.base_kernel.device, len(pictures.labels), constants.batch, 0
    adam = optimizer(student, constants)
    if checkpoint.exists():
        saved = open_checkpoint(checkpoint, device)
        student.load_state_dict(saved["model"])
        adam.load_state_dict(saved["optimizer"])
        first = saved["step"]
        report(f"continuing at step {first} of {steps}")
    student.train()
    teacher.eval()
    mean_loss = float("nan")
    for step in range(first, steps):
        order = torch.Generator().manual_seed(seed + step * batch // total)
        begin = step * batch % total
        chosen = pictures.images[torch.randperm(total, generator=order)[begin : begin + batch]]
        views = [
            (augment(chosen, m.image_size[0], torch.Generator().manual_seed(seed * 1_000_003 + step)).to(device)
             - m._mean) / m._std
            for m in (student, teacher)
        ]  # fmt: skip
        own, other = mixup(np.random.default_rng((seed, step)), constants.mixup, *views)
        with torch.no_grad():
            target = teacher.head(teacher(other, teacher.native_grid).pooled)
        for group in adam.param_groups:
            group["lr"] = learning_rate(step, steps, constants.warmup, constants.learning_rate)
        answer = student.head(student(own, schedule.grid(step + 1, steps)).pooled)
        loss = kl_divergence(target, answer, constants.temperature).mean()
        if not torch.isfinite(loss):
            raise ValueError(f"loss is {loss.item()} at step {step}; lower the learning rate")
        adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), constants.clip)
        adam.step()
        mean_loss = loss.item() if step == first else 0.9 * mean_loss + 0.1 * loss.item()
        if (step + 1) % 20 == 0 or step + 1 == steps:
            report(f"distillation {step + 1}/{steps} KL {mean_loss:.4f}")
            state = {"model": student.state_dict(), "optimizer": adam.state_dict(), "step": step + 1}
            write_atomically(checkpoint, lambda path, state=state: torch.save(state, path))
    return mean_loss
