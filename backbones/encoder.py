"""What all image encoders share, and the defaults of a plain class `(images, grid) -> Features`."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from backbones.contract import Features, Normalisation
from backbones.grids import METHODS, Grid, Size, as_pair, valid_grids

HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # big_vision's value_range(-1, 1)
VIEW_FIELDS = ("resize",)


def _flatten(features: Features) -> tuple[list[Any], tuple[bool, tuple[int, ...]]]:
    leaves = [features.pooled, features.map, features.prefix, *features.taps.values()]
    if features.cls is not None:
        leaves.append(features.cls)
    return leaves, (features.cls is not None, tuple(features.taps))


def _unflatten(leaves: Any, context: tuple[bool, tuple[int, ...]]) -> Features:
    leaves, (has_cls, taps) = list(leaves), context
    features = object.__new__(Features)  # leaves may be no tensors: a default could not be made of them
    features.pooled, features.map, features.prefix = leaves[:3]
    features.taps = dict(zip(taps, leaves[3:], strict=False))
    features.cls = leaves[-1] if has_cls else None
    return features


_pytree.register_pytree_node(Features, _flatten, _unflatten, serialized_type_name="backbones.Features")


class Encoder(nn.Module):
    """Base of image encoders: input normalisation, chunks, binding of views, hash of weights.

    A subclass defines `forward(images, grid) -> Features` and sets `embed_dim`; see `backbones.contract.Backbone`.

    Args:
        normalisation: mean and standard deviation of the weights, applied to uint8 input.
        image_size: pixels, int or (h, w), that the weights were made for.
        native_grid: tokens per side that they were made for; by default that of patches nearest to 16 pixels.
    """

    view_fields: frozenset[str] = frozenset()
    embed_dim: int
    pretrained: bool
    _mean: Tensor
    _std: Tensor

    def __init__(self, normalisation: Normalisation = HALF, image_size: Size = 240, native_grid: Size | None = None):
        super().__init__()
        self.normalisation = normalisation
        self.image_size = as_pair(image_size)
        self.native_grid: Grid = as_pair(native_grid) if native_grid else usual_grid(self.image_size)
        self.flexible: bool | None = None
        self.token_budget: int | None = None  # set by the runner; None: a batch is one chunk
        self._view: dict[str, Any] | None = None  # None: no view is bound
        self.register_buffer("_mean", None, persistent=False)
        self.register_buffer("_std", None, persistent=False)
        self._set_normalisation()

    def _set_normalisation(self, device: torch.device | None = None) -> None:
        wide = torch.float64 if self.dtype == torch.float64 else torch.float32
        for name, values in (("_mean", self.normalisation.mean), ("_std", self.normalisation.std)):
            setattr(self, name, torch.tensor(values, dtype=wide, device=device).view(-1, 1, 1) * 255)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self._set_normalisation(self._mean.device)  # never rounded: half a grey value would be lost
        return self

    @property
    def head(self) -> nn.Module | None:
        """The upstream classifier, `head(features.pooled)`, or None."""
        return None

    @property
    def num_features(self) -> int:
        """`embed_dim`, as timm calls it."""
        return self.embed_dim

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights; uint8 input is brought to it."""
        return next((p.dtype for p in self.parameters() if p.is_floating_point()), torch.float32)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 `[B, C, H, W]` to the float input of the weights; float input passes (already normalised).

        Computed in float32 at least, given in the precision of the weights.

        Raises: ValueError for other types.
        """
        if images.is_floating_point():
            return images
        if images.dtype != torch.uint8:
            raise ValueError(f"images must be uint8, or float when already normalised, not {images.dtype}")
        return (images.to(self._mean.dtype) - self._mean).div_(self._std).to(self.dtype)

    @contextmanager
    def bound(self, *, resize: str | None = None) -> Iterator[Self]:
        """Bind the fields of a view for the length of a pass; None leaves the encoder's own value.

        Weights must not change within: on a GPU what was resized of them is kept from one outermost binding to its end.

        Args: resize: kernel resize method; an argument of a call goes before it. What is not among `view_fields` is
            checked and changes nothing.

        Raises: ValueError for a resize method that there is not.

        Example: `with encoder.bound(resize="area"): encoder(images, 8)`
        """
        if resize is not None and resize not in METHODS:
            raise ValueError(f"no resize method {resize!r}; there are: {', '.join(METHODS)}")
        before = self._view
        if before is None:
            self._begin_pass()
        self._view = {**(before or {}), **({} if resize is None else {"resize": resize})}
        try:
            yield self
        finally:
            self._view = before

    def _begin_pass(self) -> None:
        """Called where the outermost view is bound."""

    def chunks(self, images: Tensor, grid: Size) -> Iterator[Tensor]:
        """Cut a batch so that a chunk stays within the token budget."""
        tokens = as_pair(grid)[0] * as_pair(grid)[1]
        yield from images.split(max(1, (self.token_budget or len(images) * tokens) // tokens))

    def weights_hash(self) -> str:
        """First 16 hex digits of the SHA-256 over names, shapes and values of all weights."""
        return hash_of_state(self.state_dict())


def hash_of_state(state: dict[str, Tensor]) -> str:
    """First 16 hex digits of the SHA-256 over names, shapes and values of a state dict."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def usual_grid(image: Size) -> Grid:
    """The grid whose patches are nearest to 16 pixels: `usual_grid(240) == (15, 15)`."""

    def nearest(side: int) -> int:
        return min(valid_grids(side), key=lambda g: (abs(side / g - 16), g))

    height, width = as_pair(image)
    return nearest(height), nearest(width)


class Completed(Encoder):
    """A plain `nn.Module` `(images, grid) -> Features` with all that a backbone offers besides.

    What the module has itself (`normalise`, `image_size`, `embed_dim`, `head`, ...) is kept; the width is read off one
    forward pass where it is not told. Its parameters are those of `inner`.
    """

    def __init__(self, inner: nn.Module, image_size: Size | None = None, native_grid: Size | None = None):
        size = getattr(inner, "image_size", None) or image_size or 240
        normalisation = getattr(inner, "normalisation", None) or HALF
        super().__init__(Normalisation(*normalisation), size, getattr(inner, "native_grid", None) or native_grid)
        self.inner = inner
        accepted = inspect.signature(inner.forward).parameters
        self.view_fields = frozenset({*(f for f in VIEW_FIELDS if f in accepted), *getattr(inner, "view_fields", ())})
        self._tapping = "taps" in accepted
        self.flexible = getattr(inner, "flexible", None)
        width = getattr(inner, "embed_dim", None) or getattr(inner, "num_features", None)
        self.embed_dim = int(width) if width else self._measured_width()

    def _measured_width(self) -> int:
        training = self.inner.training
        some = next(self.inner.parameters(), torch.empty(0))
        images = torch.zeros(1, len(self.normalisation.mean), *self.image_size, device=some.device, dtype=self.dtype)
        try:
            with torch.no_grad():
                features = self._features(self.inner.eval()(images, self.native_grid))
        except Exception as error:  # a stranger's forward pass
            reason = (str(error).splitlines() or [""])[0]
            raise ValueError(
                f"{type(self.inner).__name__} is no backbone (images, grid) -> Features: images {list(images.shape)} "
                f"at grid {self.native_grid} raise {type(error).__name__}: {reason}; `image_size`, `native_grid` and "
                "`embed_dim` of the class say what suits it"
            ) from error
        self.inner.train(training)
        return int(features.pooled.shape[-1])

    @property
    def head(self) -> nn.Module | None:
        return getattr(self.inner, "head", None)

    def normalise(self, images: Tensor) -> Tensor:
        own = getattr(self.inner, "normalise", None)
        return super().normalise(images) if own is None else own(images)

    def forward(self, images: Tensor, grid: Size, resize: str | None = None, taps: tuple[int, ...] = ()) -> Features:
        resize = resize or (self._view or {}).get("resize")
        more: dict[str, Any] = {"resize": resize} if resize and "resize" in self.view_fields else {}
        if taps and not self._tapping:
            raise ValueError(f"{type(self.inner).__name__} has no inner maps to give: its forward takes no `taps`")
        return self._features(
            self.inner(self.normalise(images), as_pair(grid), **more, **({"taps": taps} if taps else {}))
        )

    def _features(self, given: Any) -> Features:
        if not isinstance(given, Features):
            raise TypeError(f"{type(self.inner).__name__} gives {type(given).__name__}, a backbone gives Features")
        return given

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_") or "inner" not in self.__dict__.get("_modules", {}):
                raise
            return getattr(self._modules["inner"], name)


def completed(module: nn.Module, image_size: Size | None = None, native_grid: Size | None = None) -> Encoder:
    """The module itself where it is an `Encoder`, else with the defaults of one. Raises TypeError for no module."""
    if not isinstance(module, nn.Module):
        raise TypeError(f"a backbone is a torch nn.Module, not {type(module).__name__}")
    return module if isinstance(module, Encoder) else Completed(module, image_size, native_grid)
