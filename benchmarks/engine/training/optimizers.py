"""Optimizer, learning-rate schedule, clipping and weight averaging: what a recipe's words mean."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.engine.training.updates.adam import AdamWBf16
from benchmarks.engine.training.updates.muon import MuonAdamW
from tasks.contract import Recipe, TaskError
from tasks.protocols import protocol

SHARED = protocol("contract")
POLY_POWER, MOMENTUM = SHARED.value("poly_power"), SHARED.value("momentum")
BETAS, EPSILON = tuple(SHARED.value("adam_betas")), SHARED.value("adam_epsilon")
EMA_WARMUP = SHARED.value("ema_warmup")


def lr_factor(recipe: Recipe, step: int) -> float:
    """Factor on the learning rate at step `step`, counted from 0 as big_vision does: with warm-up, step 0 has none.

    Example: `lr_factor(Recipe(steps=100, warmup=10), 5) == 0.5 * 1.0`
    """
    warm = min(1.0, step / recipe.warmup) if recipe.warmup else 1.0
    progress = min(max((step - recipe.warmup) / max(recipe.steps - recipe.warmup, 1), 0.0), 1.0)
    if recipe.schedule == "cosine":
        return warm * 0.5 * (1 + math.cos(math.pi * progress))
    if recipe.schedule != "poly":
        return warm
    end = recipe.end_lr / recipe.lr if recipe.lr else 0.0
    return warm * (end + (1 - end) * (1 - progress) ** POLY_POWER)


def is_kernel(name: str, parameter: Tensor) -> bool:
    """Matrices and convolutions; not biases, norms, positions or tokens."""
    return parameter.ndim > 1 and name.rsplit(".", 1)[-1].endswith("weight")


def group_of(name: str, recipe: Recipe) -> str | None:
    """The longest prefix of `lr_groups` that a parameter's name begins with; None: it learns at `lr`."""
    return max((p for p in recipe.lr_groups if name == p or name.startswith(p + ".")), key=len, default=None)


def is_locked(name: str, recipe: Recipe) -> bool:
    """Whether a recipe locks a parameter: the factor of its group is 0.

    Example: `is_locked("text.ln_final.weight", Recipe(lr_groups={"text": 0.0}))`
    """
    prefix = group_of(name, recipe)
    return prefix is not None and recipe.lr_groups[prefix] == 0


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Groups by learning rate and decay; `lr` of a group is its peak. The longest prefix of `lr_groups` wins.

    What a factor of 0 locks is in no group: neither clipping nor decay sees it. A prefix that no parameter has is a
    warning.

    Raises: TaskError where nothing is trained.
    """
    groups: dict[tuple[float, float, bool], list[Tensor]] = {}
    used = set()
    for name, parameter in model.named_parameters():
        prefix = group_of(name, recipe)
        used.add(prefix)
        if not parameter.requires_grad or is_locked(name, recipe):
            continue
        factor = 1.0 if prefix is None else recipe.lr_groups[prefix]
        decays = recipe.weight_decay if is_kernel(name, parameter) or not recipe.decay_kernels_only else 0.0
        turned = recipe.optimizer == "muon" and parameter.ndim == 2 and "blocks." in name and is_kernel(name, parameter)
        groups.setdefault((recipe.lr * factor, decays, turned), []).append(parameter)
    if not groups:
        raise TaskError("nothing to train: no parameter of the model requires a gradient; set recipe steps to 0")
    locked = {p for p in recipe.lr_groups if any(n.startswith(p + ".") for n, _ in model.named_parameters())}
    if unknown := [p for p in recipe.lr_groups if p not in used | locked and not _is_module(model, p)]:
        # no error: a recipe may name a part that only some heads of its task have
        warnings.warn(f"recipe: lr_groups names {unknown[0]!r}, but no parameter starts so", stacklevel=2)
    made = [{"params": p, "lr": lr, "peak_lr": lr, "weight_decay": wd} for (lr, wd, _), p in groups.items()]
    for group, (_, _, turned) in zip(made, groups, strict=True):
        if turned:
            group["muon"] = True
    return made


def _is_module(model: nn.Module, name: str) -> bool:
    # a locked tower (`Frozen`) is a module without parameters of its own: its factor is moot, not wrong
    return name in dict(model.named_modules())


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD with momentum .9; Adam or AdamW, fused; `adamw_bf16` keeps its first moment in bfloat16, `muon` is Muon for
    the matrices of the blocks and AdamW for the rest."""
    groups = parameter_groups(model, recipe)
    if recipe.optimizer == "adamw_bf16":
        return AdamWBf16(groups)
    if recipe.optimizer == "sgd":  # not fused: that rounds the last bits of small tensors otherwise
        return torch.optim.SGD(groups, momentum=MOMENTUM)
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "muon": MuonAdamW}[recipe.optimizer]
    return kind(groups, betas=BETAS, eps=EPSILON, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, recipe: Recipe, step: int) -> None:
    """Give each group its learning rate of step `step` (from 0)."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * lr_factor(recipe, step)


def clip_gradients(parameters: Iterable[Tensor], largest: float) -> Tensor:
    """Scale all gradients so that their common norm is at most `largest`; returns the norm before, unread."""
    return torch.nn.utils.clip_grad_norm_(list(parameters), largest)


class Averaged:
    """Exponential moving average of the trained parameters, debiased by a warm-up of its decay."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.values = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """After step `step` (from 0). Early averages follow the weights: (1 + step) / (10 + step) as in TensorFlow."""
        decay = min(self.decay, (1 + step) / (EMA_WARMUP + step))
        weights = dict(model.named_parameters())
        torch._foreach_lerp_(list(self.values.values()), [weights[name].detach() for name in self.values], 1 - decay)

    def load(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self.values[name].copy_(value)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Put the averages in place of the weights."""
        for name, parameter in model.named_parameters():
            if name in self.values:
                parameter.copy_(self.values[name])
