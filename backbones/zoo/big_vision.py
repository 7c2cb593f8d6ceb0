"""The published FlexiViT files and the paper's fixed baselines, from big_vision's bucket."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backbones.contract import BackboneSpec
from backbones.weights import download
from backbones.zoo.files import path_in
from backbones.zoo.shapes import SIZES

if TYPE_CHECKING:
    from backbones.flexible import FlexiBackbone

BUCKET = "https://storage.googleapis.com/big_vision/flexivit"
LICENCE = "Apache-2.0"


def _build(
    file: str,
    size: str,
    native: int,
    pretrained: bool = True,
    path: str | None = None,
    checksum: str | None = None,
    drop_path: float = 0.0,
    num_classes: int | None = None,
    **options: Any,
) -> FlexiBackbone:
    from backbones.zoo.architecture import build_from_shape  # timm takes seconds to import
    from backbones.zoo.files import build_from_npz

    shape = SIZES[size]
    if pretrained:
        weights = path or str(download.fetch(f"{BUCKET}/{file}", checksum))
        return build_from_npz(weights, 240, native, drop_path, num_classes, expected=shape, **options)
    classes = (21843 if "i21k" in file else 1000) if num_classes is None else num_classes
    return build_from_shape(replace(shape, classes=classes), 240, native, drop_path, **options)


def _obstacle(file: str, pretrained: bool = True, path: str | None = None, **options: Any) -> str | None:
    if not pretrained:
        return None
    if path is not None:
        return None if Path(path).is_file() else f"no weights file {path}"
    return download.obstacle(f"{BUCKET}/{file}")


def _files(file: str, pretrained: bool = True, path: str | None = None, **options: Any) -> list[Path]:
    weights = path_in(path) if path else download.cached_path(f"{BUCKET}/{file}")
    return [weights] if pretrained else []


def _spec(name: str, file: str, size: str, trained_on: str, native: int | None = None) -> BackboneSpec:
    return BackboneSpec(
        name, partial(_build, file, size, native or 15), 240, native, trained_on, f"{BUCKET}/{file}", LICENCE,
        SIZES[size], flexible=native is None, obstacle=partial(_obstacle, file), files=partial(_files, file),
    )  # fmt: skip


def _specs() -> list[BackboneSpec]:
    specs = []
    for size in "sbl":
        for epochs, ending in ((1200, ""), (600, "_600ep"), (300, "_300ep"), (90, "_90ep")):
            name = f"flexivit_{size}_i1k{ending}"
            specs.append(_spec(name, f"{name}.npz", size, f"ImageNet-1k, {epochs} epochs, DeiT III teacher"))
    for epochs in (90, 300, 1000):
        name = f"flexivit_b_i21k_{epochs}ep"
        specs.append(_spec(name, f"{name}.npz", "b", f"ImageNet-21k, {epochs} epochs"))
    for patch, grid in ((16, 15), (30, 8)):
        name = f"vit_b{patch}_i21k"
        specs.append(_spec(name, f"{name}_300ep.npz", "b", "ImageNet-21k, 300 epochs, fixed grid", grid))
    return specs


SPECS = _specs()
