"""Backbones by name: the official FlexiViT files, nano models, any timm ViT, a file, an entry point, a callable."""

from __future__ import annotations

import difflib
import fnmatch
import functools
import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoints, entry_points
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # names are listed without torch and timm, which take seconds to import
    from torch import nn

    from backbones.shape import VitShape

GROUP = "flexivit_transfer.backbones"


@dataclass(frozen=True)
class BackboneSpec:
    """What is known of a backbone before it is built.

    `native_grid` None: flexible, runs well at every grid of its training. `shape`: its architecture where that is
    known without building it, so that a plan can tell costs.
    """

    name: str
    build: Callable[..., nn.Module]
    image_size: int = 240
    native_grid: int | None = None
    trained_on: str = ""
    weights: str = ""
    licence: str = ""
    shape: VitShape | None = None


_SPECS: dict[str, BackboneSpec] = {}


def register_backbone(spec: BackboneSpec) -> BackboneSpec:
    """Add a backbone. Raises ValueError where the name is taken by another."""
    if spec.name in _SPECS and _SPECS[spec.name] != spec:
        raise ValueError(f"backbone {spec.name!r} is already registered")
    _SPECS[spec.name] = spec
    return spec


@functools.lru_cache(maxsize=4)
def _entries(group: str, path: tuple[str, ...]) -> EntryPoints:
    """Entry points as `path` (sys.path) offers them; the search reads every installed package's metadata."""
    return entry_points(group=group)


def _known() -> dict[str, BackboneSpec]:
    importlib.import_module("backbones.zoo")
    for entry in _entries(GROUP, tuple(sys.path)):
        if entry.name not in _SPECS:
            loaded = entry.load()
            register_backbone(loaded if isinstance(loaded, BackboneSpec) else BackboneSpec(entry.name, loaded))
    return _SPECS


def list_backbones(pattern: str = "*") -> list[str]:
    """Registered names that match a wildcard; `timm:PATTERN` lists timm's ViT family.

    Example: `list_backbones("flexivit_b*")`
    """
    if pattern.startswith("timm:"):
        from backbones.zoo.timm_models import list_timm

        return list_timm(pattern.removeprefix("timm:"))
    return sorted(fnmatch.filter(_known(), pattern))


def backbone_spec(name: str) -> BackboneSpec:
    """The spec behind a name, a `timm:NAME`, a path to `.npz` or `.safetensors`, or `module:callable`.

    Raises: ValueError naming the nearest known names.
    """
    known = _known()
    if name in known:
        return known[name]
    if name.startswith("timm:"):
        from backbones.zoo.timm_models import timm_spec

        return timm_spec(name)
    if ".npz" in name or name.endswith(".safetensors"):
        from backbones.zoo.files import build_from_file

        return BackboneSpec(name, lambda **options: build_from_file(name, **options), weights=name)
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            return BackboneSpec(name, getattr(importlib.import_module(module), attribute))
        except (ImportError, AttributeError) as error:
            raise ValueError(f"backbone {name!r} cannot be imported: {error}") from error
    near = difflib.get_close_matches(name, known, 3, 0.4)
    hint = f"nearest: {', '.join(near)}" if near else f"known: {', '.join(sorted(known))}"
    raise ValueError(f"no backbone {name!r}; {hint}; also timm:NAME, a path to .npz or .safetensors, module:callable")


def build_backbone(name: str, **options: Any) -> nn.Module:
    """Build an image encoder by name.

    Options of all flexible backbones: `resize`, `filter`, `position_filter` (see `FlexiBackbone`), `pretrained=False`
    for random weights, `drop_path`, and `num_classes` for a new upstream head.

    Example: `features = build_backbone("flexivit_nano")(images, grid=8)`
    """
    return backbone_spec(name).build(**options)
