"""Our own `.safetensors`: a backbone of big_vision's form with architecture, image size and `flexible` beside it."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backbones.contract import VitShape, WeightsError

if TYPE_CHECKING:  # a plan reads the header alone, without torch
    from torch import Tensor

    from backbones.flexible import FlexiBackbone

LARGEST_HEADER = 100 << 20  # as safetensors has it


def read_header(path: str | Path) -> dict[str, Any]:
    """The header of a `.safetensors` file: tensors by key with dtype, shape and offsets, and `__metadata__`.

    Raises: WeightsError for a file that is not there, no safetensors, or shorter than its header tells.
    """
    file = Path(path)
    try:
        size = file.stat().st_size
        with file.open("rb") as content:
            start = content.read(8)
            if start[:4] == b"PK\x03\x04":
                raise ValueError("it is a zip archive, as torch.save writes; name it .pth")
            (length,) = struct.unpack("<Q", start)
            if length > LARGEST_HEADER:
                raise ValueError(f"a header of {length} bytes")
            header: dict[str, Any] = json.loads(content.read(length))
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
    except FileNotFoundError:
        raise WeightsError(f"no weights file {path}") from None
    except (OSError, ValueError, struct.error, AttributeError, KeyError, TypeError, IndexError) as error:
        raise WeightsError(f"{path} ({size_of(file)}) is truncated or no safetensors: {error}") from error
    if size != 8 + length + max(ends, default=0):
        raise WeightsError(f"{path} ({size} bytes) is truncated: its header tells {8 + length + max(ends, default=0)}")
    return header


def size_of(file: Path) -> str:
    """`123 bytes`, or `no file`."""
    return f"{file.stat().st_size} bytes" if file.is_file() else "no file"


def own_metadata(header: dict[str, Any], where: str) -> tuple[VitShape, dict[str, Any]] | None:
    """Architecture and notes of a file of `save_backbone`, None for any other. Raises WeightsError for torn ones."""
    meta = header.get("__metadata__") or {}
    if "vit" not in meta:
        return None
    try:
        values = json.loads(meta["vit"])
        shape = VitShape(**{**values, "patch": tuple(values["patch"]), "positions": tuple(values["positions"])})
        return shape, json.loads(meta.get("backbone", "{}"))
    except (ValueError, TypeError, KeyError) as error:
        raise WeightsError(f"{where}: its architecture cannot be read: {error}") from error


def save_backbone(backbone: FlexiBackbone, path: str | Path, half: bool = True, **notes: Any) -> None:
    """Write a big_vision-style backbone as `.safetensors` with its architecture; 16-bit floats by default.

    `notes` are kept in its metadata, as are image size, native grid and whether it is flexible.
    """
    import torch
    from safetensors.torch import save_file

    trunk: Any = backbone.trunk
    shape = {
        "width": trunk.embed_dim, "depth": len(trunk.blocks), "heads": trunk.blocks[0].attn.num_heads,
        "mlp": trunk.blocks[0].mlp.fc1.out_features, "patch": list(backbone.base_kernel.shape[-2:]),
        "positions": list(backbone.position_grid), "class_token": trunk.cls_token is not None,
        "pool": trunk.global_pool, "classes": trunk.num_classes,
    }  # fmt: skip
    known = {"image_size": list(backbone.image_size), "native_grid": list(backbone.native_grid)}
    extra = {**known, "flexible": backbone.flexible, **notes}
    dtype = torch.float16 if half else torch.float32
    state = {k: v.detach().cpu().to(dtype).contiguous() for k, v in trunk.state_dict().items()}
    partial = Path(path).with_suffix(".part")
    save_file(state, partial, {"vit": json.dumps(shape), "backbone": json.dumps(extra)})
    partial.chmod(0o644)  # safetensors writes for its owner alone
    partial.replace(path)


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a `.safetensors` file, in their own precision. Raises WeightsError where it is cut or foreign."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    read_header(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} ({size_of(Path(path))}) is truncated or no safetensors: {error}") from error
