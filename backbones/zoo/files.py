"""Backbones from a file: big_vision `.npz`, our own `.safetensors`, any other state dict of a timm ViT."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backbones.contract import BackboneSpec, VitShape, WeightsError
from backbones.grids import Size
from backbones.weights.own import own_metadata, read_header, read_tensors
from backbones.zoo.options import CHECKPOINT, NPZ

if TYPE_CHECKING:  # a plan tells what a file is without torch and timm
    from backbones.flexible import FlexiBackbone

ENDINGS = (".npz", ".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".pth.tar")


def is_file_name(name: str) -> bool:
    """Does a backbone's name say that it is a file? `file.npz:img` takes a submodel of it."""
    return name.endswith(ENDINGS) or ".npz:" in name


def spec_of(name: str) -> BackboneSpec:
    """What a file tells of itself without being loaded; nothing where it is not there.

    Raises: WeightsError for a file of ours whose header is torn.
    """
    known: dict[str, Any] = {}
    if name.endswith(".safetensors") and Path(name).is_file() and (own := own_metadata(read_header(name), name)):
        shape, notes = own
        known = {"shape": shape, "flexible": notes.get("flexible"), "image_size": max(notes.get("image_size", [240]))}
    build, obstacle = functools.partial(build_from_file, name), functools.partial(_obstacle, name)
    return BackboneSpec(
        name, build, weights=name, obstacle=obstacle, files=lambda **options: [path_in(name)],
        options=option_names(name), **known,
    )  # fmt: skip


def option_names(name: str) -> tuple[str, ...]:
    """Options of a file by its ending: that of big_vision holds all that those of others are asked about."""
    return NPZ if path_in(name).suffix == ".npz" else CHECKPOINT


def path_in(name: str) -> Path:
    """The file in a name that may go on with a submodel.

    Example: `path_in("lit.npz:img")` is `Path("lit.npz")`
    """
    return Path(f"{name.partition('.npz:')[0]}.npz" if ".npz:" in name else name)


def _obstacle(name: str, **options: Any) -> str | None:
    path = path_in(name)
    if not path.is_file():
        return f"no weights file {path}"
    try:
        if path.suffix == ".safetensors":
            read_header(path)
    except WeightsError as error:
        return str(error)
    return None


def build_from_npz(
    path: str,
    image_size: Size = 240,
    native_grid: Size = 15,
    drop_path: float = 0.0,
    num_classes: int | None = None,
    expected: VitShape | None = None,
    strict: bool = True,
    **options: Any,
) -> FlexiBackbone:
    """A big_vision checkpoint.

    Args: expected: width, depth and heads as a name promises them. strict: refuse leaves that have no place; False
        says them and goes on.

    Raises: WeightsError telling which key does not fit.
    """
    from backbones.encoder import HALF
    from backbones.flexible import FlexiBackbone
    from backbones.weights.npz import npz_shape, npz_state, read_npz
    from backbones.weights.state import load_exactly
    from backbones.zoo.architecture import replace_head, vit_trunk

    leaves = read_npz(path)
    shape = npz_shape(leaves, str(path))
    if expected and (shape.width, shape.depth, shape.heads) != (expected.width, expected.depth, expected.heads):
        raise WeightsError(f"{path}: expected {expected}; the file has {shape}")
    trunk = vit_trunk(shape, drop_path)
    load_exactly(trunk, npz_state(leaves, shape, str(path), strict), str(path))
    replace_head(trunk, num_classes)
    return FlexiBackbone(trunk, HALF, image_size, native_grid, **options)


def build_from_safetensors(
    path: str, drop_path: float = 0.0, num_classes: int | None = None, **options: Any
) -> FlexiBackbone:
    """A file of `save_backbone`, or a state dict of a timm ViT. Raises WeightsError for a truncated or foreign file."""
    from backbones.encoder import HALF
    from backbones.flexible import FlexiBackbone
    from backbones.weights.state import load_exactly
    from backbones.zoo.architecture import replace_head, vit_trunk

    own = own_metadata(read_header(path), path)
    if own is None:
        from backbones.zoo.state_dicts import build_from_checkpoint

        return build_from_checkpoint(path, drop_path, num_classes, **options)
    shape, notes = own
    trunk = vit_trunk(shape, drop_path)
    load_exactly(trunk, {k: v.float() for k, v in read_tensors(path).items()}, path)
    replace_head(trunk, num_classes)
    size, grid = tuple(notes.get("image_size", (240, 240))), tuple(notes.get("native_grid", (15, 15)))
    encoder = FlexiBackbone(trunk, HALF, **{"image_size": size, "native_grid": grid, **options})
    encoder.flexible = notes.get("flexible")
    return encoder


def build_from_file(path: str, **options: Any) -> FlexiBackbone:
    """By the ending: big_vision's `.npz`, `.safetensors`, else a checkpoint of torch."""
    if path.endswith(".safetensors"):
        return build_from_safetensors(path, **options)
    if path.endswith(".npz") or ".npz:" in path:
        return build_from_npz(path, **options)
    from backbones.zoo.state_dicts import build_from_checkpoint

    return build_from_checkpoint(path, **options)
