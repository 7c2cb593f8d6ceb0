"""Nano models: 1.2 M parameters, 120 px, trained on Tiny ImageNet by the suite `nano` and embedded in the package."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backbones.contract import BackboneSpec, WeightsError
from backbones.zoo.options import FLEXIBLE, names_of
from backbones.zoo.shapes import NANO

if TYPE_CHECKING:
    from backbones.flexible import FlexiBackbone

FOLDER = Path(__file__).parent / "weights"
NATIVE = {"flexivit_nano": None, "flexivit_nano_distilled": None, "vit_nano_g15": 15, "vit_nano_g8": 8}
# the student of a distillation stores the kernel of its finest patch, as the official ones do
SHAPES = {"flexivit_nano_distilled": replace(NANO, patch=(8, 8))}


def _build(
    name: str, pretrained: bool = True, drop_path: float = 0.0, num_classes: int | None = None, **options: Any
) -> FlexiBackbone:
    from backbones.zoo.architecture import build_from_shape  # timm takes seconds to import
    from backbones.zoo.files import build_from_safetensors

    options = {"image_size": 120, "native_grid": NATIVE[name] or 8, **options}
    if pretrained:
        if problem := _obstacle(name):
            raise WeightsError(problem)
        return build_from_safetensors(str(FOLDER / f"{name}.safetensors"), drop_path, num_classes, **options)
    classes = NANO.classes if num_classes is None else num_classes
    return build_from_shape(replace(SHAPES.get(name, NANO), classes=classes), drop_path=drop_path, **options)


def _files(name: str, pretrained: bool = True, **options: Any) -> list[Path]:
    return [FOLDER / f"{name}.safetensors"] if pretrained else []


def _obstacle(name: str, pretrained: bool = True, **options: Any) -> str | None:
    file = FOLDER / f"{name}.safetensors"
    missing = f"{file} is missing: the package was installed without its weights"
    return missing if pretrained and not file.exists() else None


SPECS = [
    BackboneSpec(
        name, partial(_build, name), 120, grid, "Tiny ImageNet, 100 classes", f"{name}.safetensors",
        shape=SHAPES.get(name, NANO),
        flexible=grid is None, obstacle=partial(_obstacle, name), files=partial(_files, name),
        options=names_of(partial(_build, name), FLEXIBLE),
    )
    for name, grid in NATIVE.items()
]  # fmt: skip
