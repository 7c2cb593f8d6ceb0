"""What an image encoder is bound to for the length of a pass."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def bound(model: Any, resize: str | None = None) -> Iterator[Any]:
    """Bind a view to the backbone that a model holds as `model.backbone` (or is), for the length of a pass.

    A backbone without a resize method is left as it is.

    Example: `with bound(model, resize="area"): model(images, grid)`
    """
    encoder = getattr(model, "backbone", model)
    encoder = encoder.__dict__.get("module", encoder)  # a locked one is kept off the module tree
    if resize is None or not hasattr(encoder, "resize"):
        yield model
        return
    own, encoder.resize = encoder.resize, resize
    try:
        yield model
    finally:
        encoder.resize = own
