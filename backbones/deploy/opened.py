"""Opens what `export_model` wrote, so that it can be compared and scored like any backbone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from backbones.contract import Features, Normalisation, WeightsError
from backbones.deploy.formats import KEY, quiet
from backbones.encoder import Encoder
from backbones.grids import Size, as_pair


class ExportedModel(nn.Module):
    """An exported file as a function: `model(images)` -> tensors by the names of its outputs; `metadata` as written."""

    def __init__(self, run: Callable[[Tensor], tuple[Tensor, ...]], metadata: dict[str, Any], path: str):
        super().__init__()
        self.run, self.metadata, self.path = run, metadata, path

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        size, floats = tuple(self.metadata["image_size"]), self.metadata["input"].startswith("normalised")
        other = images.is_floating_point() != floats and not Path(self.path).is_dir()  # timm's takes both
        if other or images.ndim != 4 or tuple(images.shape[-2:]) != size:
            given = f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
            wanted = f"{'normalised floats' if floats else 'uint8'} [B, C, {size[0]}, {size[1]}]"
            raise ValueError(f"{self.path} takes {wanted}, not {given}")
        return dict(zip(self.metadata["outputs"], self.run(images), strict=True))


class ExportedEncoder(Encoder):
    """An exported file with `pooled` and `map` in the place of the backbone that it was made of."""

    def __init__(self, model: ExportedModel):
        meta = model.metadata
        if not {"pooled", "map"} <= set(meta["outputs"]):
            raise ValueError(f"{model.path} gives {meta['outputs']}, an encoder needs pooled and map")
        super().__init__(
            Normalisation(tuple(meta["mean"]), tuple(meta["std"])), tuple(meta["image_size"]), tuple(meta["grid"])
        )
        self.model, self.embed_dim = model, int(meta["embed_dim"])

    def normalise(self, images: Tensor) -> Tensor:
        """Images as the file takes them: uint8 where it normalises itself."""
        return super().normalise(images) if self.model.metadata["input"].startswith("normalised") else images

    def forward(self, images: Tensor, grid: Size) -> Features:
        if as_pair(grid) != self.native_grid:
            raise ValueError(f"{self.model.path} runs at grid {self.native_grid}, not {as_pair(grid)}")
        given = self.model(images)
        prefix = given.get("prefix")
        return Features(given["pooled"], given["map"], prefix)


def open_exported(path: str | Path, threads: int | None = None) -> ExportedModel:
    """Open an ONNX graph with ONNX Runtime on the CPU, a `.pt2` program, or a timm folder.

    Args: threads: of ONNX Runtime; None: as many as torch has.

    Raises: WeightsError for a file that is missing, torn or not of `export_model`.
    """
    file = Path(path)
    if not file.exists():
        raise WeightsError(f"no exported model {path}")
    try:
        if file.is_dir():
            return _timm(file)
        return _onnx(file, threads) if file.suffix == ".onnx" else _torch(file)
    except ImportError:
        raise
    except Exception as error:  # each library has exceptions of its own for a file that is torn
        reason = (str(error).splitlines() or [""])[0]
        raise WeightsError(f"{path} is no exported model: {type(error).__name__}: {reason}") from error


def _onnx(file: Path, threads: int | None) -> ExportedModel:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    metadata = json.loads(session.get_modelmeta().custom_metadata_map[KEY])

    def run(images: Tensor) -> tuple[Tensor, ...]:
        given = session.run(None, {"images": np.ascontiguousarray(images.cpu().numpy())})
        return tuple(torch.from_numpy(value) for value in given)

    return ExportedModel(run, metadata, str(file))


def _torch(file: Path) -> ExportedModel:
    kept = {f"{KEY}.json": ""}
    with quiet():
        module = torch.export.load(file, extra_files=kept).module()

    def run(images: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            given = module(images)
        return given if isinstance(given, tuple) else (given,)

    return ExportedModel(run, json.loads(kept[f"{KEY}.json"]), str(file))


def _timm(folder: Path) -> ExportedModel:
    import timm

    metadata = json.loads((folder / "config.json").read_text(encoding="utf-8"))[KEY]
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    encoder = Encoder(Normalisation(tuple(metadata["mean"]), tuple(metadata["std"])))

    def run(images: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return (model(encoder.normalise(images)),)

    return ExportedModel(run, metadata, str(folder))
