"""`timm:NAME`: any timm VisionTransformer (DINOv2, CLIP, SigLIP, DeiT III, MAE, ...) or Eva (EVA-02, DINOv3)."""

from __future__ import annotations

import difflib
import fnmatch
from functools import partial
from typing import Any

import timm

from backbones.download import WeightsError
from backbones.features import Normalisation
from backbones.flexible import FlexiBackbone
from backbones.registry import BackboneSpec


def list_timm(pattern: str = "*") -> list[str]:
    """`timm:` names of the ViT families."""
    names = [n for module in ("vision_transformer", "eva", "deit") for n in timm.list_models(module=module)]
    return [f"timm:{n}" for n in sorted(fnmatch.filter(names, pattern or "*"))]


def _build(
    name: str, pretrained: bool = True, drop_path: float = 0.0, num_classes: int | None = None, **options: Any
) -> FlexiBackbone:
    keywords: dict[str, Any] = {"drop_path_rate": drop_path}
    if num_classes is not None:
        keywords["num_classes"] = num_classes
    try:
        trunk = timm.create_model(name, pretrained=pretrained, **keywords)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise WeightsError(
            f"timm cannot get the weights of {name!r} ({str(error).splitlines()[0]}); fetch them on a machine with a "
            "network (they land in HF_HOME) or pass pretrained=False"
        ) from error
    if pretrained and not trunk.pretrained_cfg.get("hf_hub_id") and not trunk.pretrained_cfg.get("url"):
        print(f"warning: timm has no weights for {name!r}; they are random")
    config = trunk.pretrained_cfg
    return FlexiBackbone(trunk, Normalisation(tuple(config["mean"]), tuple(config["std"])), **options)


def timm_spec(name: str) -> BackboneSpec:
    """Spec of `timm:NAME`. Raises ValueError with the nearest timm names."""
    short = name.removeprefix("timm:")
    architecture = short.split(".")[0]
    if not timm.is_model(architecture):
        known = [n.removeprefix("timm:") for n in list_timm()]
        near = difflib.get_close_matches(architecture, known, 3, 0.4)
        raise ValueError(f"timm has no model {short!r}; nearest: {', '.join(near) or 'none'}")
    config = timm.get_pretrained_cfg(short)
    size = config.input_size[-1] if config else 224
    return BackboneSpec(name, partial(_build, short), size, weights=f"timm {short}", licence="see its model card")
