"""A deployed model as a file: ONNX, `torch.export`, or a folder that timm opens."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from backbones.deploy.module import Deployed, DeployedModel, ToNorm

FORMATS = ("onnx", "torch", "timm")
ENDINGS = {"onnx": ".onnx", "torch": ".pt2", "timm": ""}
KEY = "flexivit"  # of the metadata in a file


def export_model(model: Deployed, path: str | Path, form: str = "onnx") -> Path:
    """Write a deployed model; its metadata go into the file. Any batch size runs.

    `onnx`: a graph with input `images` and the names of the outputs. `torch`: a program of `torch.export`. `timm`: a
    folder `config.json` and `model.safetensors` for `timm.create_model("local-dir:FOLDER", pretrained=True)`, which
    takes normalised input.

    Raises: ValueError for a form that there is not, or a model that it cannot hold; ONNX without the packages of
    the extra `deploy`.

    Example: `export_model(deploy(encoder, 12), "nano12.onnx")`
    """
    if form not in FORMATS:
        raise ValueError(f"no format {form!r}; there are: {', '.join(FORMATS)}")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    {"onnx": _onnx, "torch": _torch, "timm": _timm}[form](model, path)
    return path


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Exporters talk at length about themselves."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def program(model: Deployed) -> torch.export.ExportedProgram:
    """`torch.export` of a deployed model, the batch size left open."""
    batch = torch.export.Dim("batch", min=1)
    with quiet():
        return torch.export.export(model, (model.example(3),), dynamic_shapes=({0: batch},))


def _torch(model: Deployed, path: Path) -> None:
    partial = path.with_name(f"{path.stem}.part.pt2")
    try:
        with quiet():
            torch.export.save(program(model), partial, extra_files={f"{KEY}.json": json.dumps(model.metadata)})
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _onnx(model: Deployed, path: Path) -> None:
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError as error:
        raise ValueError(f"ONNX needs more packages ({error}): pip install 'flexivit-transfer[deploy]'") from error
    with quiet():
        made: Any = torch.onnx.export(
            program(model), input_names=["images"], output_names=list(model.outputs), dynamo=True, verbose=False
        )
    proto = made.model_proto
    for key, value in (("format", KEY), (KEY, json.dumps(model.metadata))):
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    partial = path.with_name(f"{path.name}.part")
    try:
        onnx.checker.check_model(proto)
        onnx.save(proto, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _timm(model: Deployed, folder: Path) -> None:
    from safetensors.torch import save_file

    plain_timm(model)
    config = timm_config(model)
    state = {k.replace("rope.rope.", "rope."): v for k, v in plain_timm(model).state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


def plain_timm(model: Deployed) -> nn.Module:
    """The timm model inside, with the classifier as its head.

    Raises: ValueError for a backbone that is no timm model, a head that is no linear layer, or other outputs.
    """
    trunk: Any = model.encoder.trunk
    if isinstance(model, DeployedModel) or trunk is None or any(isinstance(m, ToNorm) for m in trunk.modules()):
        raise ValueError("a timm model holds a plain ViT only; use onnx or torch")
    if model.outputs == ("pooled",):
        trunk.reset_classifier(0)
    elif model.outputs != ("logits",) or not isinstance(model.head, nn.Linear):
        raise ValueError(f"a timm model gives logits of a linear head, or pooled features, not {list(model.outputs)}")
    else:
        trunk.head, trunk.num_classes = model.head, model.head.out_features
    return trunk


def timm_config(model: Deployed) -> dict[str, Any]:
    """`config.json` as timm reads it."""
    meta = model.metadata
    trunk: Any = model.encoder.trunk
    own = getattr(trunk, "pretrained_cfg", None) or {}
    arguments: dict[str, Any] = {"img_size": meta["image_size"], "patch_size": meta["patch"]}
    if own.get("architecture"):
        architecture = own["architecture"]
    elif isinstance(trunk, VisionTransformer):
        architecture, arguments = "vit_base_patch16_224", {**vit_arguments(trunk), **arguments}
    else:
        raise ValueError(f"{type(trunk).__name__} without a name of timm's cannot be made by it; use onnx or torch")
    classes = meta["classes"]
    classifier: Any = plain_timm(model)
    return {
        "architecture": architecture,
        "num_classes": classifier.num_classes,
        "num_features": trunk.num_features,
        "global_pool": trunk.global_pool,
        "model_args": arguments,
        **({"label_names": classes} if classes else {}),
        "pretrained_cfg": {
            "input_size": [trunk.patch_embed.proj.in_channels, *meta["image_size"]], "fixed_input_size": True,
            "interpolation": own.get("interpolation", "bilinear"), "crop_pct": own.get("crop_pct", 240 / 272),
            "crop_mode": own.get("crop_mode", "center"), "mean": meta["mean"], "std": meta["std"],
            "num_classes": classifier.num_classes, "first_conv": "patch_embed.proj", "classifier": "head",
        },
        KEY: meta,
    }  # fmt: skip


def vit_arguments(trunk: VisionTransformer) -> dict[str, Any]:
    """Arguments that make timm's `VisionTransformer` anew, as JSON.

    Raises: ValueError for one that JSON cannot say.
    """
    block: Any = trunk.blocks[0]
    activation = type(block.mlp.act).__name__
    names = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "SiLU": "silu", "QuickGELU": "quick_gelu"}
    if type(block.mlp).__name__ != "Mlp" or activation not in names:
        raise ValueError(f"{type(block.mlp).__name__} with {activation} is no argument of timm's; use onnx or torch")
    if activation == "GELU" and getattr(block.mlp.act, "approximate", "none") == "tanh":
        names["GELU"] = "gelu_tanh"
    return {
        "embed_dim": trunk.embed_dim, "depth": len(trunk.blocks), "num_heads": block.attn.num_heads,
        "mlp_ratio": block.mlp.fc1.out_features / trunk.embed_dim, "in_chans": trunk.patch_embed.proj.in_channels,
        "qkv_bias": block.attn.qkv.bias is not None, "qk_norm": not isinstance(block.attn.q_norm, nn.Identity),
        "proj_bias": block.attn.proj.bias is not None,
        "init_values": None if isinstance(block.ls1, nn.Identity) else 1e-5,
        "class_token": trunk.cls_token is not None, "reg_tokens": trunk.num_reg_tokens,
        "no_embed_class": trunk.no_embed_class, "pos_embed": "none" if trunk.pos_embed is None else "learn",
        "pre_norm": not isinstance(trunk.norm_pre, nn.Identity), "fc_norm": not isinstance(trunk.fc_norm, nn.Identity),
        "final_norm": not (isinstance(trunk.norm, nn.Identity) and isinstance(trunk.fc_norm, nn.Identity)),
        "global_pool": trunk.global_pool, "act_layer": names[activation],
    }  # fmt: skip
