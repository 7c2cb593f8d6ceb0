"""A state dict and the model that it is for: what is missing, has another shape, has no place, or is not finite."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from backbones.contract import WeightsError


def shape_text(value: Tensor) -> str:
    """`(768, 3, 16, 16)`."""
    return f"({', '.join(map(str, value.shape))})"


def listed(state: Mapping[str, Tensor], keys: list[str], most: int = 3) -> str:
    """`'a' (3, 4), 'b' (5) and 7 more`."""
    shown = ", ".join(f"{key!r} {shape_text(state[key])}" for key in keys[:most])
    return shown + (f" and {len(keys) - most} more" if len(keys) > most else "")


def check_finite(state: Mapping[str, Tensor], where: str) -> None:
    """Raise WeightsError naming the keys whose values are NaN or infinite, or not there at all."""
    if absent := [k for k, v in state.items() if v.is_meta or v.layout is not torch.strided]:
        raise WeightsError(f"{where}: no plain values in {listed(state, absent)}: on the meta device, or sparse")
    broken = [k for k, v in state.items() if v.is_floating_point() and not bool(torch.isfinite(v).all())]
    if broken:
        raise WeightsError(f"{where}: values that are not finite in {listed(state, broken)}")


def unexpected_keys(trunk: nn.Module, state: Mapping[str, Tensor], where: str) -> list[str]:
    """Keys of a state that a model has no place for, sorted, once all that it needs is there.

    Raises: WeightsError with key, expected and actual shape, for what is missing or misshapen.
    """
    expected = trunk.state_dict()
    for key, value in expected.items():
        if key not in state:
            raise WeightsError(f"{where}: no key {key!r}, expected shape {shape_text(value)}")
        if state[key].shape != value.shape:
            raise WeightsError(f"{where}: key {key!r} has shape {shape_text(state[key])}, expected {shape_text(value)}")
    return sorted(set(state) - set(expected))


def load_exactly(trunk: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load a state of the same names and shapes, all values finite.

    Raises: WeightsError with key, expected and actual shape.
    """
    if extra := unexpected_keys(trunk, state, where):
        raise WeightsError(f"{where}: no place for {listed(state, extra)}")
    check_finite(state, where)
    trunk.load_state_dict(dict(state))
