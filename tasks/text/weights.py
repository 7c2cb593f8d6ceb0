"""Weights of text towers: open_clip's tags and files of ours. Loads without torch."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from backbones.weights.hub import in_hub_cache
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
    tags = table_of_tags()
    known, source = tags.list_pretrained_tags_by_model(name), tags.get_pretrained_cfg(name, weights)
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


@functools.lru_cache(maxsize=1)
def table_of_tags() -> ModuleType:
    """The module of open_clip that knows its tags, and where each is fetched from; nothing else of it is imported.

    The package imports torch, which a plan does not wait for; this module wants it for loading alone, and does without.

    Example: `table_of_tags().list_pretrained_tags_by_model("ViT-B-16-quickgelu")` begins with "openai"
    """
    if "torch" in sys.modules:
        return importlib.import_module("open_clip.pretrained")
    found = importlib.util.find_spec("open_clip")
    bare = ModuleType("open_clip_tags")  # a package of the same files, whose own __init__ is not run
    bare.__path__ = list(found.submodule_search_locations or ()) if found else []
    hidden: dict[str, Any] = {bare.__name__: bare, "safetensors.torch": None}
    before = {name: sys.modules[name] for name in hidden if name in sys.modules}
    sys.modules.update(hidden)
    try:
        return importlib.import_module(f"{bare.__name__}.pretrained")
    finally:
        for name in [n for n in sys.modules if n in hidden or n.startswith(f"{bare.__name__}.")]:
            del sys.modules[name]
        sys.modules.update(before)


def cached(source: dict[str, Any]) -> bool:
    """Whether what open_clip would fetch for one of its tags is here; it prefers the hub of Hugging Face."""
    if hub := source.get("hf_hub"):
        return in_hub_cache(*hub_files(hub)) is not None
    name = os.path.basename(source.get("url", ""))
    return bool(name) and Path("~/.cache/clip", name).expanduser().is_file()


def hub_files(hub: str) -> tuple[str, tuple[str, ...]]:
    """Repository and the files that open_clip looks for, of `org/model/` or `org/model/file`.

    Example: `hub_files("timm/clip.openai/")[0]` is "timm/clip.openai"
    """
    repository, _, name = hub.rpartition("/")
    if not name:
        tags = table_of_tags()
        return repository, (tags.HF_SAFE_WEIGHTS_NAME, tags.HF_WEIGHTS_NAME)
    return repository, (str(Path(name).with_suffix(".safetensors")), name)


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
