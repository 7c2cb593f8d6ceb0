"""big_vision's `.npz`: leaves to a timm state. Nothing here unpickles code."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from backbones.contract import VitShape, WeightsError

PREFIXES = ("opt/target/", "params/", "")


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Leaves of a big_vision checkpoint, names without prefix; `file.npz:img` takes a submodel.

    Accepts the layouts of the official loader: `params/...`, `opt/target/...`, none; bfloat16 saved as void2;
    blocks stacked by scan. Raises: WeightsError for a missing, truncated or foreign file.
    """
    name, _, submodel = str(path).partition(".npz:")
    file = Path(f"{name}.npz") if submodel else Path(path)
    if not file.exists():
        raise WeightsError(f"no weights file {file}")
    try:
        with np.load(file, allow_pickle=False) as archive:
            raw = {key: archive[key] for key in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{file} ({file.stat().st_size} bytes) is truncated or no .npz: {error}") from error
    if strange := [key for key, value in raw.items() if not isinstance(value, np.ndarray)]:
        raise WeightsError(f"{file} is a zip archive and no .npz: it holds {strange[0]!r}, no array")
    prefix = next((p for p in PREFIXES if any(k.startswith(p) for k in raw)), "")
    leaves = {k[len(prefix) :]: v for k, v in raw.items() if k.startswith(prefix)}
    if submodel:
        leaves = {k[len(submodel) + 1 :]: v for k, v in leaves.items() if k.startswith(f"{submodel}/")}
        if not leaves:
            tops = ", ".join(sorted({k[len(prefix) :].split("/")[0] for k in raw}))
            raise WeightsError(f"{file} has no submodel {submodel!r}; it has: {tops}")
    leaves = {k: _plain(v) for k, v in leaves.items()}
    stacked = [k for k in leaves if k.startswith("Transformer/encoderblock/")]
    for key in stacked:
        for i, leaf in enumerate(leaves.pop(key)):
            leaves[key.replace("encoderblock/", f"encoderblock_{i}/", 1)] = leaf
    for old in ("Transformer/pos_embedding", "Transformer/posembed_input/pos_embedding"):
        if old in leaves:
            leaves["pos_embedding"] = leaves.pop(old)
    return leaves


def _plain(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "V" and array.dtype.itemsize == 2:  # bfloat16 loses its name on disk
        return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return array


def _leaf(leaves: Mapping[str, np.ndarray], key: str, where: str, shape: tuple[int | None, ...]) -> np.ndarray:
    if key not in leaves:
        raise WeightsError(f"{where}: no key {key!r}, expected shape {_show(shape)}; it has {len(leaves)} keys")
    found = leaves[key].shape
    if len(found) != len(shape) or any(e is not None and e != f for e, f in zip(shape, found, strict=True)):
        raise WeightsError(f"{where}: key {key!r} has shape {found}, expected {_show(shape)}")
    return leaves[key]


def _show(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('?' if s is None else str(s) for s in shape)})"


def npz_shape(leaves: Mapping[str, np.ndarray], where: str = "npz") -> VitShape:
    """Read the architecture from the leaves' shapes. Raises WeightsError naming the key that does not fit."""
    kernel = _leaf(leaves, "embedding/kernel", where, (None, None, 3, None))
    width = kernel.shape[3]
    depth = len({k.split("/")[1] for k in leaves if k.startswith("Transformer/encoderblock_")})
    if not depth:
        raise WeightsError(f"{where}: no key 'Transformer/encoderblock_0/...': not a ViT checkpoint of big_vision")
    query = "Transformer/encoderblock_0/MultiHeadDotProductAttention_0/query/kernel"
    heads = _leaf(leaves, query, where, (width, None, None)).shape[1]
    mlp = _leaf(leaves, "Transformer/encoderblock_0/MlpBlock_0/Dense_0/kernel", where, (width, None)).shape[1]
    tokens = _leaf(leaves, "pos_embedding", where, (1, None, width)).shape[1]
    with_class = "cls" in leaves and round((tokens - 1) ** 0.5) ** 2 == tokens - 1 and round(tokens**0.5) ** 2 != tokens
    side = round((tokens - with_class) ** 0.5)
    if side * side + with_class != tokens:
        raise WeightsError(f"{where}: key 'pos_embedding' has {tokens} entries, expected a square number")
    pool = "map" if "MAPHead_0/probe" in leaves else "token" if "cls" in leaves else "avg"
    classes = leaves["head/kernel"].shape[-1] if "head/kernel" in leaves else 0
    patch = (kernel.shape[0], kernel.shape[1])
    return VitShape(width, depth, heads, mlp, patch, (side, side), "cls" in leaves, pool, classes, with_class)


def npz_state(
    leaves: Mapping[str, np.ndarray], shape: VitShape, where: str = "npz", strict: bool = True
) -> dict[str, Tensor]:
    """big_vision leaves as a timm `VisionTransformer` state.

    Args: strict: refuse leaves that have no place there (the encoder would be another without); False says them.

    Raises: WeightsError for missing or misshapen keys.
    """
    width, heads = shape.width, shape.heads
    state: dict[str, np.ndarray] = {}
    used: set[str] = set()

    def take(key: str, *expected: int | None) -> np.ndarray:
        used.add(key)
        return np.asarray(_leaf(leaves, key, where, expected), dtype=np.float32)

    def norm(source: str, target: str) -> None:
        state[f"{target}.weight"], state[f"{target}.bias"] = (
            take(f"{source}/scale", width),
            take(f"{source}/bias", width),
        )

    def dense(source: str, target: str, inner: int, outer: int) -> None:
        state[f"{target}.weight"] = take(f"{source}/kernel", inner, outer).T
        state[f"{target}.bias"] = take(f"{source}/bias", outer)

    def attention(source: str, parts: Mapping[str, tuple[str, ...]], out: str) -> None:
        dim = width // heads
        for target, names in parts.items():
            kernels = [take(f"{source}/{n}/kernel", width, heads, dim).reshape(width, width).T for n in names]
            state[f"{target}.weight"] = np.concatenate(kernels)
            state[f"{target}.bias"] = np.concatenate([take(f"{source}/{n}/bias", heads, dim).ravel() for n in names])
        state[f"{out}.weight"] = take(f"{source}/out/kernel", heads, dim, width).reshape(width, width).T
        state[f"{out}.bias"] = take(f"{source}/out/bias", width)

    def mlp(source: str, target: str) -> None:
        dense(f"{source}/Dense_0", f"{target}.fc1", width, shape.mlp)
        dense(f"{source}/Dense_1", f"{target}.fc2", shape.mlp, width)

    state["patch_embed.proj.weight"] = take("embedding/kernel", *shape.patch, 3, width).transpose(3, 2, 0, 1)
    state["patch_embed.proj.bias"] = take("embedding/bias", width)
    positions = take("pos_embedding", 1, None, width)
    if shape.class_token and shape.pool == "token":
        # old files give cls a position of its own: a constant that is added to it
        state["cls_token"] = take("cls", 1, 1, width) + (positions[:, :1] if shape.position_for_class else 0)
    state["pos_embed"] = positions[:, 1:] if shape.position_for_class else positions
    for i in range(shape.depth):
        block = f"Transformer/encoderblock_{i}"
        norm(f"{block}/LayerNorm_0", f"blocks.{i}.norm1")
        norm(f"{block}/LayerNorm_1", f"blocks.{i}.norm2")
        parts: dict[str, tuple[str, ...]] = {f"blocks.{i}.attn.qkv": ("query", "key", "value")}
        attention(f"{block}/MultiHeadDotProductAttention_0", parts, f"blocks.{i}.attn.proj")
        mlp(f"{block}/MlpBlock_0", f"blocks.{i}.mlp")
    norm("Transformer/encoder_norm", "norm")
    if shape.pool == "map":
        state["attn_pool.latent"] = take("MAPHead_0/probe", 1, 1, width)
        parts = {"attn_pool.q": ("query",), "attn_pool.kv": ("key", "value")}
        attention("MAPHead_0/MultiHeadDotProductAttention_0", parts, "attn_pool.proj")
        norm("MAPHead_0/LayerNorm_0", "attn_pool.norm")
        mlp("MAPHead_0/MlpBlock_0", "attn_pool.mlp")
    if shape.classes:
        dense("head", "head", width, shape.classes)
    if left := sorted(set(leaves) - used):
        shown = ", ".join(f"{key!r} {_show(leaves[key].shape)}" for key in left[:3])
        told = f"{where}: no place for {shown}" + (f" and {len(left) - 3} more" if len(left) > 3 else "")
        if strict:
            raise WeightsError(f"{told}; the encoder would be another without (strict=False leaves them out)")
        print(f"{told}; left out")
    return {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in state.items()}
