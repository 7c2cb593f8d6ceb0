"""Architectures with random weights, to be trained upstream: `flexivit_{nano,s,b,l}_scratch`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from backbones.contract import BackboneSpec, VitShape
from backbones.grids import Size, as_pair
from backbones.zoo.options import FLEXIBLE, names_of
from backbones.zoo.shapes import NANO, SIZES

if TYPE_CHECKING:
    from backbones.flexible import FlexiBackbone


def _build(
    shape: VitShape, side: int, native: int, pretrained: bool = False, patch: Size | None = None,
    positions: Size | None = None, num_classes: int | None = None, **options: Any,
) -> FlexiBackbone:  # fmt: skip
    """`patch`, `positions`: sizes of the stored kernel and of the position grid. Raises ValueError if pretrained."""
    from backbones.zoo.architecture import build_from_shape  # timm takes seconds to import, a plan needs only names

    if problem := _obstacle(pretrained):
        raise ValueError(problem)
    shape = replace(
        shape, patch=as_pair(patch or shape.patch), positions=as_pair(positions or shape.positions),
        classes=shape.classes if num_classes is None else num_classes,
    )  # fmt: skip
    return build_from_shape(shape, **{"image_size": side, "native_grid": native, **options})


def _obstacle(pretrained: bool = False, **options: Any) -> str | None:
    said = "there are no weights of an architecture that starts from scratch; leave pretrained out"
    return said if pretrained else None


# whether one is flexible is decided by the grids that it will be trained at
SPECS = [
    BackboneSpec(
        f"flexivit_{name}_scratch", partial(_build, shape, side, native), side,
        trained_on="nothing: random weights", shape=shape, obstacle=_obstacle,
        options=names_of(partial(_build, shape, side, native), (*FLEXIBLE, "drop_path")),
    )
    for name, shape, side, native in (("nano", NANO, 120, 8), *((n, s, 240, 15) for n, s in SIZES.items()))
]  # fmt: skip
