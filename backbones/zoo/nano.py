"""Nano models: 1.2 M parameters, 120 px, trained on Tiny ImageNet and embedded in the package."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backbones.download import WeightsError
from backbones.registry import BackboneSpec, register_backbone
from backbones.shape import VitShape

if TYPE_CHECKING:
    from backbones.flexible import FlexiBackbone

FOLDER = Path(__file__).parent / "weights"
SHAPE = VitShape(128, 6, 4, 512, (32, 32), (7, 7), True, "token", 100)
NATIVE = {"flexivit_nano": None, "vit_nano_g15": 15, "vit_nano_g8": 8}


def _build(
    name: str, pretrained: bool = True, drop_path: float = 0.0, num_classes: int | None = None, **options: Any
) -> FlexiBackbone:
    from backbones.zoo.files import build_from_safetensors, build_from_shape  # timm takes seconds to import

    options = {"image_size": 120, "native_grid": NATIVE[name] or 8, **options}
    if pretrained:
        file = FOLDER / f"{name}.safetensors"
        if not file.exists():
            raise WeightsError(f"{file} is missing; train it with: python -m benchmarks.experiments.pretrain {name}")
        return build_from_safetensors(str(file), drop_path, num_classes, **options)
    classes = SHAPE.classes if num_classes is None else num_classes
    return build_from_shape(replace(SHAPE, classes=classes), drop_path=drop_path, **options)


for _name, _grid in NATIVE.items():
    register_backbone(
        BackboneSpec(
            _name, partial(_build, _name), 120, _grid, "Tiny ImageNet, 100 classes", f"{_name}.safetensors", shape=SHAPE
        )
    )
