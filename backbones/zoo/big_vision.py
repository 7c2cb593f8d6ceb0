"""The published FlexiViT files and the paper's fixed baselines, from big_vision's bucket."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backbones.contract import BackboneSpec, Download, VitShape
from backbones.weights import download
from backbones.zoo.files import path_in
from backbones.zoo.options import FLEXIBLE, names_of
from backbones.zoo.shapes import SIZES, parameters

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
    shape = _shape(file, size) if num_classes is None else replace(shape, classes=num_classes)
    return build_from_shape(shape, 240, native, drop_path, **options)


def _obstacle(file: str, pretrained: bool = True, path: str | None = None, **options: Any) -> str | None:
    if not pretrained:
        return None
    return None if path is None or Path(path).is_file() else f"no weights file {path}"


def _fetches(file: str, size: str, pretrained: bool = True, path: str | None = None, **options: Any) -> Download | None:
    bytes_stored = 4 * parameters(_shape(file, size))
    return download.pending(f"{BUCKET}/{file}", bytes_stored) if pretrained and path is None else None


def _shape(file: str, size: str) -> VitShape:
    return replace(SIZES[size], classes=21843 if "i21k" in file else 1000)


def _files(file: str, pretrained: bool = True, path: str | None = None, **options: Any) -> list[Path]:
    weights = path_in(path) if path else download.cached_path(f"{BUCKET}/{file}")
    return [weights] if pretrained else []


# a published file is made for its own image size and grid
OPTIONS = names_of(
    partial(_build, "", "", 0), (*(n for n in FLEXIBLE if n not in ("image_size", "native_grid")), "strict")
)


def _spec(name: str, file: str, size: str, trained_on: str, native: int | None = None) -> BackboneSpec:
    return BackboneSpec(
        name, partial(_build, file, size, native or 15), 240, native, trained_on, f"{BUCKET}/{file}", LICENCE,
        SIZES[size], flexible=native is None, obstacle=partial(_obstacle, file), files=partial(_files, file),
        options=OPTIONS, fetches=partial(_fetches, file, size),
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
