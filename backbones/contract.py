"""What an image encoder is: what it returns, what it must offer, what is known of it before it is built.

Nothing here imports torch when the module is read: suites are planned and backbones listed without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from backbones.grids import Grid, Size

if TYPE_CHECKING:
    from torch import Tensor, nn


class WeightsError(ValueError):
    """Weights that cannot be used, in one line: which file, which key, what was expected and what is there."""


@dataclass
class Features:
    """Output of `backbone(images, grid)`. B images, grid h x w, width D, P prefix tokens.

    A pytree: `torch.utils._pytree.tree_map` goes over its tensors and gives a `Features` again.

    Attributes:
        pooled: `[B, D]`, the official pre_logits.
        map: `[B, h, w, D]`, patch tokens after the final norm.
        prefix: `[B, P, D]`, class and register tokens after the final norm; `[B, 0, D]` where there are none.
        cls: `[B, D]` or None.
        taps: maps `[B, h, w, D]` after inner blocks, by the number of the block, when asked for.
    """

    pooled: Tensor
    map: Tensor
    prefix: Tensor = None  # type: ignore[assignment]
    cls: Tensor | None = None
    taps: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.prefix is None:
            self.prefix = self.map.new_empty(self.map.shape[0], 0, self.map.shape[-1])


class Normalisation(NamedTuple):
    """Mean and standard deviation per channel, of pixels scaled to 0-1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class VitShape:
    """The architecture of a ViT as data: read from the shapes of a checkpoint, enough to tell its cost."""

    width: int
    depth: int
    heads: int
    mlp: int
    patch: tuple[int, int]
    positions: tuple[int, int]
    class_token: bool
    pool: str  # token | avg | map
    classes: int
    position_for_class: bool = False

    def __str__(self) -> str:
        return (
            f"width {self.width}, depth {self.depth}, {self.heads} heads, MLP {self.mlp}, kernel "
            f"{self.patch[0]}x{self.patch[1]}, positions {self.positions[0]}x{self.positions[1]}, pool {self.pool}, "
            f"{self.classes or 'no'} classes"
        )


@runtime_checkable
class Backbone(Protocol):
    """An image encoder that runs at any grid.

    A plug-in needs `forward(images, grid) -> Features` alone: `build_backbone` completes any such `nn.Module` with the
    defaults of `backbones.encoder.Encoder`. What it defines itself is kept.

    Attributes:
        image_size: (height, width) in pixels that the weights were made for.
        native_grid: the grid that they were made for, or one that suits `image_size`.
        embed_dim: D of `Features`.
        flexible: trained at many grids? None where it is not known.
        normalisation: applied by `normalise` to uint8 images.
        view_fields: fields of a view that change its output; it is indifferent to all others.
        head: upstream classifier, `head(features.pooled)` are logits; None without.
        token_budget: tokens of a forward pass that `chunks` keeps to; None: a batch is one chunk.
    """

    image_size: tuple[int, int]
    native_grid: Grid
    embed_dim: int
    flexible: bool | None
    normalisation: Normalisation
    view_fields: frozenset[str]
    token_budget: int | None

    @property
    def head(self) -> Callable[[Tensor], Tensor] | None: ...

    def __call__(self, images: Tensor, grid: Size) -> Features:
        """Encode uint8 `[B, C, H, W]`, or float images that are normalised already, at a grid."""
        ...

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 images to the float input of the weights; float input passes."""
        ...

    def bound(self, *, resize: str | None = None) -> AbstractContextManager[Backbone]:
        """Bind the fields of a view for the length of a pass."""
        ...

    def chunks(self, images: Tensor, grid: Size) -> Iterator[Tensor]:
        """Cut a batch so that a chunk stays within the token budget."""
        ...

    def weights_hash(self) -> str:
        """16 hex digits that differ where any weight differs."""
        ...


@dataclass(frozen=True)
class Download:
    """Weights that are fetched before a backbone can be built, because no cache has them.

    Args: what: in words, of several. url: of the server that is asked for them. without: what helps who has no
    network. size: bytes, about; None where that is not known.

    Example: `str(download)` is `the weights a.npz are not in the cache; a run downloads about 346 MB from https://...`
    """

    what: str
    url: str
    without: str
    size: int | None = None

    def __str__(self) -> str:
        amount = "them" if self.size is None else f"about {self.size / 1e6:,.0f} MB"
        return f"{self.what} are not in the cache; a run downloads {amount} from {self.url}"


@dataclass(frozen=True)
class BackboneSpec:
    """What is known of a backbone before it is built.

    Args:
        name: how suites call it.
        build: `build(**options)` gives the module; options of all flexible backbones: see `build_backbone`.
        image_size: side in pixels that the weights were made for.
        native_grid: tokens per side that they were made for; None where there is no such single grid.
        trained_on, weights, licence: for people; `weights` is a URL or a file's name.
        shape: the architecture where it is known without building it, so that a plan can tell costs.
        flexible: trained at many grids? None where it is not known. Never read off a name.
        channels: of an image.
        obstacle: `obstacle(**options)` tells why it cannot be built here, or None; without torch, without a network.
        fetches: `fetches(**options)` is what would be downloaded first, or None; likewise.
        files: `files(**options)` names the files that, with the options, decide all weights, so that their hash can be
            remembered; none where weights are random. Of code of one's own, name its file too. Without torch.
        options: names of what `build` takes; None: what its signature says.
    """

    name: str
    build: Callable[..., nn.Module]
    image_size: int = 240
    native_grid: int | None = None
    trained_on: str = ""
    weights: str = ""
    licence: str = ""
    shape: VitShape | None = None
    flexible: bool | None = None
    channels: int = 3
    obstacle: Callable[..., str | None] | None = None
    fetches: Callable[..., Download | None] | None = None
    files: Callable[..., Sequence[str | Path]] | None = None
    options: tuple[str, ...] | None = None


def bound(model: nn.Module, **view: Any) -> AbstractContextManager[Any]:
    """Bind a view to the backbone that a model holds as `model.backbone` (or is), for the length of a pass.

    A model without a backbone is left as it is.

    Raises: TypeError for a field that no view has; ValueError for a value that there is not.

    Example: `with bound(model, resize="area"): task.predict(model, batch, grid, prepared)`
    """
    from contextlib import nullcontext

    encoder: Any = model
    while encoder is not None and not hasattr(encoder, "view_fields"):
        inner = getattr(encoder, "backbone", None)
        encoder = getattr(encoder, "module", None) if inner is None else inner  # a parallel model has it in `module`
    return nullcontext(model) if encoder is None else encoder.bound(**view)
