"""`timm:NAME`: any timm VisionTransformer (DINOv2, CLIP, SigLIP, DeiT III, MAE, ...) or Eva (EVA-02, DINOv3).

`timm:hf-hub:ORG/MODEL` and `timm:local-dir:FOLDER` take a repository or a folder in timm's form.
"""

from __future__ import annotations

import difflib
import fnmatch
import functools
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import timm
from timm.models import PretrainedCfg

from backbones.contract import BackboneSpec, Download, Normalisation, WeightsError
from backbones.flexible import FlexiBackbone
from backbones.weights import download
from backbones.weights.hub import in_hub_cache
from backbones.zoo.big_vision import SPECS as PUBLISHED
from backbones.zoo.options import TIMM
from backbones.zoo.state_dicts import build_by_name

PREFIX = "timm:"
SOURCES = ("hf-hub:", "local-dir:")
ON = ("1", "ON", "YES", "TRUE")  # of a variable of Hugging Face
MODULES = ("vision_transformer", "eva", "deit")  # of timm, whose models are a VisionTransformer or an Eva
FILES = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin", "open_clip_pytorch_model.bin")


def list_timm(pattern: str = "*") -> list[str]:
    """`timm:` names of the ViT families."""
    return [f"{PREFIX}{n}" for n in sorted(fnmatch.filter(_architectures(), pattern or "*"))]


@functools.lru_cache(maxsize=1)
def _architectures() -> list[str]:
    return [n for module in MODULES for n in timm.list_models(module=module)]


def _build(
    name: str,
    pretrained: bool = True,
    drop_path: float = 0.0,
    num_classes: int | None = None,
    path: str | None = None,
    prefix: str | None = None,
    strict: bool = True,
    **options: Any,
) -> FlexiBackbone:
    """`path`, `prefix`, `strict`: weights from a file instead of timm's, see `build_from_checkpoint`."""
    trunk: Any
    keywords: dict[str, Any] = {"drop_path_rate": drop_path}
    if num_classes is not None:
        keywords["num_classes"] = num_classes
    if path is not None:
        trunk = build_by_name(name, path, prefix, strict, **keywords)
        return FlexiBackbone(trunk, _normalisation(trunk), **options)
    if pretrained and not name.startswith(SOURCES) and not _config(name).has_weights:
        raise WeightsError(f"timm has no weights for {name!r}; pass pretrained=False for random ones")
    try:
        trunk = timm.create_model(name, pretrained=pretrained, **keywords)
    except (OSError, RuntimeError, ValueError, KeyError, AssertionError, TypeError, AttributeError) as error:
        # torch tells the keys on the second line
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        reason = " ".join(lines[:2])[:300]
        if not pretrained:
            raise ValueError(f"timm cannot make {name!r}: {reason}") from error
        local = name.startswith("local-dir:")
        hint = (
            "" if local else "; fetch them on a machine with a network (they land in HF_HOME) or pass pretrained=False"
        )
        raise WeightsError(f"timm cannot get the weights of {name!r} ({reason}){hint}") from error
    encoder = FlexiBackbone(trunk, _normalisation(trunk), **options)
    if pretrained and not name.startswith(SOURCES):
        encoder.flexible = _flexible(_config(name))
    return encoder


def _normalisation(trunk: Any) -> Normalisation:
    return Normalisation(tuple(trunk.pretrained_cfg["mean"]), tuple(trunk.pretrained_cfg["std"]))


def _config(name: str) -> PretrainedCfg:
    """timm's own description of a name with or without a tag. Raises ValueError naming the tags that there are."""
    architecture, _, tag = name.partition(".")
    try:
        return timm.get_pretrained_cfg(name) or PretrainedCfg()
    except RuntimeError:
        tags = ", ".join(n.partition(".")[2] for n in timm.list_pretrained(f"{architecture}.*")) or "none"
        raise ValueError(f"timm has no weights {tag!r} of {architecture!r}; its tags: {tags}") from None


def _flexible(config: PretrainedCfg) -> bool:
    """Were these weights trained at many patch sizes? Only files of the FlexiViT authors were, of all that timm has."""
    return any(s.weights == config.url and s.flexible for s in PUBLISHED)


def spec_of(name: str) -> BackboneSpec:
    """Spec of `timm:NAME`. Raises ValueError with the nearest timm names, or the tags of an architecture."""
    short = name.removeprefix(PREFIX)
    if short.startswith(SOURCES):
        own = _own_config(short)
        size = own.get("input_size", (3, 224, 224))[-1]
        return BackboneSpec(
            name, partial(_build, short), size, weights=short, obstacle=partial(_obstacle, short),
            fetches=partial(_fetches, short),
            options=TIMM,
        )  # fmt: skip
    architecture = short.split(".")[0]
    if architecture not in _architectures():
        near = difflib.get_close_matches(architecture, _architectures(), 3, 0.4)
        what = "is no VisionTransformer or Eva" if timm.is_model(architecture) else "is not a model of timm"
        raise ValueError(f"{short!r} {what}; nearest: {', '.join(near) or 'none'}")
    config = _config(short)
    return BackboneSpec(
        name, partial(_build, short), config.input_size[-1], trained_on=config.tag or "", weights=f"timm {short}",
        licence=config.license or "see its model card", flexible=_flexible(config), channels=config.input_size[0],
        obstacle=partial(_obstacle, short), fetches=partial(_fetches, short), options=TIMM,
    )  # fmt: skip


def _own_config(name: str) -> dict[str, Any]:
    """`pretrained_cfg` of a `local-dir:` or a cached `hf-hub:` model; empty where it is not at hand."""
    source, _, place = name.partition(":")
    try:
        file = Path(place, "config.json") if source == "local-dir" else in_hub_cache(place, ("config.json",))
        read = json.loads(file.read_text(encoding="utf-8")) if file else {}
        return {**read, **read.get("pretrained_cfg", {})}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _obstacle(name: str, pretrained: bool = True, path: str | None = None, **options: Any) -> str | None:
    if path is not None:
        return None if Path(path).is_file() else f"no weights file {path}"
    source, _, place = name.partition(":")
    if source == "local-dir":
        folder = Path(place)
        if not (folder / "config.json").is_file():
            return f"no {folder / 'config.json'}: a local-dir of timm has its config beside its weights"
        weights = any(file.suffix in (".safetensors", ".pth", ".bin") for file in folder.iterdir())
        return None if weights or not pretrained else f"no weights (.safetensors, .pth, .bin) in {folder}"
    if not pretrained and source != "hf-hub":
        return None
    if source != "hf-hub" and not _config(name).has_weights:
        return f"timm has no weights for {name!r}; pass pretrained: false for random ones"
    lacking = _fetches(name, pretrained)
    if lacking and lacking.url == _endpoint() and os.environ.get("HF_HUB_OFFLINE", "").upper() in ON:
        return f"{lacking.what} are not in the Hugging Face cache and HF_HUB_OFFLINE is set"
    return None


def _fetches(name: str, pretrained: bool = True, path: str | None = None, **options: Any) -> Download | None:
    source, _, place = name.partition(":")
    if path is not None or source == "local-dir" or (not pretrained and source != "hf-hub"):
        return None
    if source == "hf-hub":
        return _from_hub(place, "config.json")
    config = _config(name)
    if config.hf_hub_id:
        return _from_hub(config.hf_hub_id, config.hf_hub_filename or "model.safetensors", name)
    if not config.url:
        return None
    return download.pending(config.url if isinstance(config.url, str) else config.url[0], _size(name))


def _from_hub(repository: str, file: str, name: str = "") -> Download | None:
    if in_hub_cache(repository, tuple(dict.fromkeys((file, *FILES)))):
        return None
    without = "fetch them on a machine with a network and bring its HF_HOME"
    return Download(f"the weights of {repository!r}", _endpoint(), without, _size(name) if name else None)


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


@functools.lru_cache(maxsize=64)
def _size(name: str) -> int | None:
    """Bytes of the weights in float32, as most of timm's are kept; None where the model cannot be outlined."""
    import torch

    try:
        with torch.device("meta"):
            return 4 * sum(p.numel() for p in timm.create_model(name, pretrained=False).parameters())
    except Exception:  # a size for people is worth no failure
        return None
