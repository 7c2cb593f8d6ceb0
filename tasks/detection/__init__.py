"""Open-vocabulary detection: OWL-ViT's heads on any backbone at any grid, scored as LVIS does."""

from __future__ import annotations

from typing import Any

__all__ = ["Detection", "predict", "score"]


def __getattr__(name: str) -> Any:
    # so that scoring loads no model, and listing tasks loads nothing
    if name == "Detection":
        from tasks.detection.adapter import Detection

        return Detection
    if name == "predict":
        from tasks.detection.finder import predict

        return predict
    if name == "score":
        from tasks.detection.scoring.files import score

        return score
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
