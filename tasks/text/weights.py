"""Weights of text towers: open_clip's tags and files of ours. Loads without torch."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contract import TaskError
from tasks.data.errors import DataError, Missing, Wrong, nearest

if TYPE_CHECKING:
    from torch import Tensor

FILES = (".pt", ".pth", ".safetensors")


def is_file(weights: str) -> bool:
    """Whether a value names a file and not a tag."""
    return Path(weights).suffix in FILES


def lacking_weights(name: str, weights: str, field: str) -> list[DataError]:
    """Why the weights of a text tower cannot be had here: no such file or tag, or a tag that is in no cache.

    Nothing is fetched. Args: name: of the text tower. field: the option, for the message.
    """
    if is_file(weights):
        return [] if Path(weights).is_file() else [Missing("no such file of text weights", path=weights)]
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    known = list_pretrained_tags_by_model(name)
    source = get_pretrained_cfg(name, weights)
    if not source:
        told = ", ".join(nearest(weights, known) or known) or "none"
        return [Wrong(f"{weights!r} is no tag of {name}; nearest: {told}", place=field)]
    if cached(source):
        return []
    hub = source.get("hf_hub", "").strip("/")
    advice = (
        f"on a machine with a network: hf download {hub}; it lands in HF_HOME"
        if hub
        else f"put {source.get('url')} into ~/.cache/clip"
    )
    return [Missing(f"no weights {weights!r} of the text tower {name}", place=field, advice=advice)]


def cached(source: dict[str, Any]) -> bool:
    """Whether what open_clip would fetch for one of its tags is here; it prefers the hub of Hugging Face."""
    if hub := source.get("hf_hub"):
        return in_hub_cache(*hub_files(hub))
    name = os.path.basename(source.get("url", ""))
    return bool(name) and Path("~/.cache/clip", name).expanduser().is_file()


def hub_files(hub: str) -> tuple[str, tuple[str, ...]]:
    """Repository and the files that open_clip looks for, of `org/model/` or `org/model/file`.

    Example: `hub_files("timm/clip.openai/")[0]` is "timm/clip.openai"
    """
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    repository, _, name = hub.rpartition("/")
    if not name:
        return repository, (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME)
    return repository, (str(Path(name).with_suffix(".safetensors")), name)


def in_hub_cache(repository: str, names: Iterable[str]) -> bool:
    """Whether one of the files is in the cache of Hugging Face; the network is left alone."""
    from huggingface_hub import try_to_load_from_cache

    return any(isinstance(try_to_load_from_cache(repository, name), str) for name in names)


def text_state(name: str, weights: str) -> dict[str, Tensor]:
    """State of a text tower, of a file of ours or of open_clip's tag. Raises: TaskError where it cannot be had."""
    if is_file(weights):
        return part_of(read_state(Path(weights)), "text.")
    import open_clip

    try:
        clip = open_clip.create_model(name, pretrained=weights, force_custom_text=True)
    except (RuntimeError, OSError) as error:
        raise TaskError(f"text weights {weights!r} of {name!r}: {str(error).splitlines()[0]}") from error
    return clip.text.state_dict()


def read_state(path: Path) -> dict[str, Tensor]:
    """All tensors of a file; nothing in it is run. Raises: TaskError where there is none."""
    if not path.is_file():
        raise TaskError(f"no file of text weights {path}")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)
    return state.get("model", state)


def part_of(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """What lies under a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
