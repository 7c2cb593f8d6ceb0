"""State dicts from anywhere: `.pth`, `.pt`, `.bin`, `.ckpt`, `.safetensors`. Nothing here runs what a file holds."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backbones.contract import WeightsError
from backbones.weights.own import read_tensors, size_of
from backbones.weights.state import listed

KERNEL = "patch_embed.proj.weight"
# where training scripts keep the weights; averaged ones go first, as timm takes them
HOLDERS = (
    "state_dict_ema", "model_ema", "ema_state_dict", "state_dict", "model_state_dict", "model", "module", "net",
    "teacher", "student", "encoder", "backbone", "params", "weights",
)  # fmt: skip
# what training scripts write beside weights and what no unpickling can misuse
_NUMBERS = "?" + np.typecodes["AllInteger"] + np.typecodes["Float"]
HARMLESS: list[Any] = [argparse.Namespace, np.dtype, np.ndarray, *{type(np.dtype(code)) for code in _NUMBERS}]
_numpy: Any = np._core.multiarray  # type: ignore[attr-defined]
HARMLESS += [(_numpy.scalar, "numpy.core.multiarray.scalar"), _numpy.scalar, _numpy._reconstruct]


class Unread:
    """Stands for what mmengine keeps beside weights, its log of losses, so that a file is read without mmengine."""

    def __init__(self, *_: Any):
        pass


HARMLESS += [(Unread, "mmengine.logging.history_buffer.HistoryBuffer"), (Unread, "builtins.getattr")]


def read_checkpoint(path: str | Path) -> Any:
    """All that a file holds, tensors on the CPU. Raises WeightsError for a missing, truncated or unsafe file."""
    file = Path(path)
    if file.suffix == ".safetensors":
        return read_tensors(file)
    if not file.is_file():
        raise WeightsError(f"no weights file {path}")
    with file.open("rb") as content:
        if content.read(9)[8:] == b"{":  # the length of a header, and JSON
            raise WeightsError(f"{path} is a safetensors file; name it .safetensors")
    try:
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        words = str(error)
        if "weights_only" in words or "GLOBAL" in words:
            culprit = next((w.strip("`.,") for w in words.split("GLOBAL ")[1:2]), "code").split()[0]
            raise WeightsError(
                f"{path} holds {culprit}, which would run code to be read; save its state dict alone: "
                "torch.save(model.state_dict(), FILE)"
            ) from error
        raise WeightsError(f"{path} ({size_of(file)}) is no checkpoint of torch: {_first(words)}") from error
    except (RuntimeError, EOFError, ValueError, OSError, KeyError, AttributeError) as error:
        reason = _first(str(error))
        raise WeightsError(f"{path} ({size_of(file)}) is truncated or no checkpoint of torch: {reason}") from error


def _first(text: str) -> str:
    return (text.splitlines() or [""])[0]


def state_of(content: Any, where: str, prefix: str | None = None, say: bool = True) -> dict[str, Tensor]:
    """The state of the ViT in a checkpoint, under timm's names.

    Opens the dict that a training script put it in, strips the prefixes of parallel, compiled and wrapped models, and
    says what it took and what it left.

    Args: prefix: which of several encoders is meant, such as `teacher.backbone.`.

    Raises: WeightsError where there is none, or several and no prefix.
    """
    holder, state = _opened(content, where)
    found = [key.removesuffix(KERNEL) for key in state if key == KERNEL or key.endswith(f".{KERNEL}")]
    if prefix is not None:
        found = [p for p in found if p == prefix]
    if not found:
        if not state:
            raise WeightsError(f"{where} holds no tensors")
        wanted = f"{prefix}{KERNEL}" if prefix is not None else f"'...{KERNEL}'"
        there = listed(state, sorted(state))
        raise WeightsError(f"{where}: no key {wanted}: no ViT under timm's names; it has {there}")
    if len(found) > 1:
        raise WeightsError(f"{where} has several encoders; say which by prefix=: {', '.join(map(repr, found))}")
    inside = {k.removeprefix(found[0]): v for k, v in state.items() if k.startswith(found[0])}
    outside = sorted(k for k in state if not k.startswith(found[0]))
    if say and (holder or found[0]):
        print(f"{where}: read {' and '.join(_taken(holder, found[0]))}")
    if say and outside:
        print(f"{where}: left out, as no part of the encoder: {listed(state, outside)}")
    return inside


def _taken(holder: str, prefix: str) -> list[str]:
    return [*([f"the weights under {holder!r}"] if holder else []), *([f"without prefix {prefix!r}"] if prefix else [])]


def _opened(content: Any, where: str) -> tuple[str, dict[str, Tensor]]:
    """The dict of tensors in nested dicts and the name it was under."""
    name = ""
    for _ in range(4):  # no script nests deeper
        if not isinstance(content, Mapping):
            break
        tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
        inner = next((h for h in HOLDERS if isinstance(content.get(h), Mapping) and _has_tensors(content[h])), None)
        if inner is None and not tensors:  # a name of the script's own
            others = [
                k for k, v in content.items() if isinstance(k, str) and isinstance(v, Mapping) and _has_tensors(v)
            ]
            inner = others[0] if len(others) == 1 else None
        if inner is None or any(key.endswith(KERNEL) for key in tensors):
            return name, tensors
        name, content = f"{name}.{inner}" if name else inner, content[inner]
    raise WeightsError(f"{where} holds a {type(content).__name__}, not a state dict")


def _has_tensors(value: Mapping[str, Any]) -> bool:
    return any(isinstance(v, Tensor) or (isinstance(v, Mapping) and _has_tensors(v)) for v in value.values())
