"""The published FlexiViT files and the paper's fixed baselines, from big_vision's bucket."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from backbones.download import fetch
from backbones.registry import BackboneSpec, register_backbone
from backbones.shape import VitShape

if TYPE_CHECKING:
    from backbones.flexible import FlexiBackbone

BUCKET = "https://storage.googleapis.com/big_vision/flexivit"
LICENCE = "Apache-2.0"

# buffers 32x32 and 7x7 as their authors state (big_vision issues 30 and 31); a file's own shapes win
SIZES = {
    "s": VitShape(384, 12, 6, 1536, (32, 32), (7, 7), True, "token", 1000),
    "b": VitShape(768, 12, 12, 3072, (32, 32), (7, 7), True, "token", 1000),
    "l": VitShape(1024, 24, 16, 4096, (32, 32), (7, 7), True, "token", 1000),
}


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
    from backbones.zoo.files import build_from_npz, build_from_shape  # timm takes seconds to import

    shape = SIZES[size]
    if pretrained:
        found = path or str(fetch(f"{BUCKET}/{file}", checksum))
        return build_from_npz(found, 240, native, drop_path, num_classes, expected=shape, **options)
    classes = (21843 if "i21k" in file else 1000) if num_classes is None else num_classes
    return build_from_shape(replace(shape, classes=classes), 240, native, drop_path, **options)


def _register(name: str, file: str, size: str, trained_on: str, native: int | None = None) -> None:
    build = partial(_build, file, size, native or 15)
    register_backbone(BackboneSpec(name, build, 240, native, trained_on, f"{BUCKET}/{file}", LICENCE, SIZES[size]))


for _size in "sbl":
    _register(f"flexivit_{_size}_i1k", f"flexivit_{_size}_i1k.npz", _size, "ImageNet-1k, 1200 epochs, DeiT III teacher")
    for _epochs in (600, 300, 90):
        _register(
            f"flexivit_{_size}_i1k_{_epochs}ep", f"flexivit_{_size}_i1k_{_epochs}ep.npz", _size,
            f"ImageNet-1k, {_epochs} epochs, DeiT III teacher",
        )  # fmt: skip
for _epochs in (90, 300, 1000):
    _name = f"flexivit_b_i21k_{_epochs}ep"
    _register(_name, f"{_name}.npz", "b", f"ImageNet-21k, {_epochs} epochs")
for _patch, _grid in ((16, 15), (30, 8)):
    _register(
        f"vit_b{_patch}_i21k", f"vit_b{_patch}_i21k_300ep.npz", "b", "ImageNet-21k, 300 epochs, fixed grid", _grid
    )
