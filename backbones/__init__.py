"""Image encoders that run at any patch grid: `build_backbone(name)(images, grid) -> Features`."""

from typing import Any

_REGISTRY = ("availability", "backbone_spec", "build_backbone", "download_of", "list_backbones", "register_backbone")
_CONTRACT = ("Backbone", "BackboneSpec", "Features", "Normalisation", "WeightsError", "bound")
_HOME = {"Encoder": "backbones.encoder", "FlexiBackbone": "backbones.flexible"}
_HOME |= dict.fromkeys(_REGISTRY, "backbones.registry") | dict.fromkeys(_CONTRACT, "backbones.contract")


def __getattr__(name: str) -> Any:
    # torch and timm take seconds to import; `run_all.py --help` must not
    if name in _HOME:
        import importlib

        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'backbones' has no attribute {name!r}")
