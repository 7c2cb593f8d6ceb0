"""What every image encoder returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor


@dataclass
class Features:
    """Output of `backbone(images, grid)`. B images, grid h x w, width D, P prefix tokens.

    `pooled` [B, D]: the official pre_logits. `map` [B, h, w, D]: patch tokens after the final norm. `prefix` [B, P, D]:
    class and register tokens after the final norm. `cls` [B, D] or None. `taps`: inner activations, when asked for.
    """

    pooled: Tensor
    map: Tensor
    prefix: Tensor
    cls: Tensor | None = None
    taps: dict[str, Tensor] = field(default_factory=dict)


class Normalisation(NamedTuple):
    """Mean and standard deviation per channel, of pixels scaled to 0-1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
