"""Architectures with random weights, to be trained upstream: `flexivit_{nano,s,b,l}_scratch`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from backbones.grids import Size, as_pair
from backbones.registry import BackboneSpec, register_backbone
from backbones.shape import VitShape
from backbones.zoo.big_vision import SIZES
from backbones.zoo.nano import SHAPE

if TYPE_CHECKING:
    from backbones.flexible import FlexiBackbone


def _build(
    shape: VitShape, side: int, native: int, pretrained: bool = False, patch: Size | None = None,
    positions: Size | None = None, num_classes: int | None = None, **options: Any,
) -> FlexiBackbone:  # fmt: skip
    """`patch`, `positions`: sizes of the stored kernel and of the position grid. Raises ValueError if pretrained."""
    from backbones.zoo.files import build_from_shape  # timm takes seconds to import, a plan needs only names

    if pretrained:
        raise ValueError("there are no weights of an architecture that starts from scratch; leave pretrained out")
    shape = replace(
        shape, patch=as_pair(patch or shape.patch), positions=as_pair(positions or shape.positions),
        classes=shape.classes if num_classes is None else num_classes,
    )  # fmt: skip
    return build_from_shape(shape, **{"image_size": side, "native_grid": native, **options})


for _name, _shape, _side, _native in (("nano", SHAPE, 120, 8), *((n, s, 240, 15) for n, s in SIZES.items())):
    register_backbone(
        BackboneSpec(
            f"flexivit_{_name}_scratch", partial(_build, _shape, _side, _native), _side,
            trained_on="nothing: random weights", shape=_shape,
        )
    )  # fmt: skip
