"""A backbone proves itself: the contract of `backbones.contract`, tried on a few images at two grids."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from backbones.contract import Features, bound
from backbones.cost import macs
from backbones.encoder import Encoder
from backbones.grids import METHODS, Grid, valid_grids
from backbones.registry import availability, build_backbone, download_of
from backbones.weights.download import obstacle
from benchmarks.engine.conformance.trying import CLOSE, Trial, require

IMAGES = 3


def check_backbone(name: str, grids: tuple[int, ...] = (), options: Mapping[str, Any] | None = None) -> list[str]:
    """Try the contract on random images.

    Args: grids: two that divide the image; by default the native one and a coarser one.

    Returns: a line for each promise, starting with `ok` or `FAIL`.

    Example: `check_backbone("my_package:Encoder")`
    """
    trial, more = Trial(), dict(options or {})
    if not trial.attempt("it can be had", lambda: _available(name, more)):
        return trial.lines
    if not trial.attempt("it is built", lambda: None if _built(trial, name, more) else None):
        return trial.lines
    encoder = trial.held["encoder"]
    images = torch.randint(0, 256, (IMAGES, len(encoder.normalisation.mean), *encoder.image_size), dtype=torch.uint8,
                           generator=torch.Generator().manual_seed(0))  # fmt: skip
    sides = grids or _usual(encoder)
    for side in sides:
        trial.attempt(f"features at grid {side}", partial(_features, encoder, images, (side, side)))
    trial.attempt("no memory of a grid, no parameter that depends on it", lambda: _forgets(encoder, images, sides))
    trial.attempt("a batch is its images", lambda: _parts(encoder, images, sides[0]))
    trial.attempt("bytes are normalised as `normalise` does", lambda: _bytes(encoder, images, sides[0]))
    trial.attempt("the view's resize acts, or it is declared indifferent", lambda: _resize(encoder, images))
    trial.attempt("changed weights change the features and the hash", lambda: _weights(encoder, images, sides[0]))
    trial.attempt("its state is all of it", lambda: _state(name, more, encoder, images, sides[0]))
    trial.attempt("gradients reach its weights", lambda: _gradients(encoder, images, sides[0]))
    trial.attempt("its cost is known", lambda: f"{macs(encoder, sides[0]) / 1e6:.1f} MMACs at grid {sides[0]}")
    return trial.lines


def _available(name: str, options: dict[str, Any]) -> None:
    wanted = download_of(name, **options)
    reason = availability(name, **options) or (wanted and obstacle(wanted))
    require(reason is None, str(reason))


def _built(trial: Trial, name: str, options: dict[str, Any]) -> bool:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trial.held["encoder"] = build_backbone(name, **options).eval()
    return True


def _usual(encoder: Encoder) -> tuple[int, int]:
    native, known = encoder.native_grid[0], [g for g in valid_grids(min(encoder.image_size)) if g > 1]
    coarser = [g for g in known if g < native] or [g for g in known if g != native] or [native]
    return native, coarser[-1]


@torch.no_grad()
def _features(encoder: Encoder, images: torch.Tensor, grid: Grid) -> str:
    found = encoder(images, grid)
    require(isinstance(found, Features), f"it gives {type(found).__name__}, not Features")
    batch, width = len(images), encoder.embed_dim
    shapes = {"pooled": (batch, width), "map": (batch, *grid, width)}
    if found.cls is not None:
        shapes["cls"] = (batch, width)
    for part, shape in shapes.items():
        value = getattr(found, part)
        require(tuple(value.shape) == shape, f"{part} is {list(value.shape)}, not {list(shape)}")
        require(bool(value.isfinite().all()), f"{part} is not finite")
    require(found.prefix.ndim == 3 and len(found.prefix) == batch, f"prefix is {list(found.prefix.shape)}")
    again = encoder(images, grid[0])
    require(torch.equal(found.pooled, again.pooled), "an integer grid, or the same call again, gives other features")
    return f"width {width}"


@torch.no_grad()
def _forgets(encoder: Encoder, images: torch.Tensor, grids: tuple[int, ...]) -> None:
    shapes = {n: tuple(p.shape) for n, p in encoder.state_dict().items()}
    first, second = encoder(images, grids[0]).map, encoder(images, grids[-1]).map
    require(torch.equal(encoder(images, grids[0]).map, first), "features depend on the grid of the call before")
    require(grids[0] == grids[-1] or first.shape != second.shape, "the map has one size at two grids")
    now = {n: tuple(p.shape) for n, p in encoder.state_dict().items()}
    require(now == shapes, f"weights changed: {sorted(set(now.items()) ^ set(shapes.items()))[:2]}")


@torch.no_grad()
def _parts(encoder: Encoder, images: torch.Tensor, grid: int) -> None:
    whole = encoder(images, grid).pooled
    parts = torch.cat([encoder(image[None], grid).pooled for image in images])
    require(torch.allclose(whole, parts, CLOSE, CLOSE), "images alone have other features than in a batch")


@torch.no_grad()
def _bytes(encoder: Encoder, images: torch.Tensor, grid: int) -> None:
    floats = encoder.normalise(images)
    require(floats.is_floating_point(), f"`normalise` gives {floats.dtype}")
    require(torch.equal(encoder(images, grid).pooled, encoder(floats, grid).pooled), "bytes and floats differ")


@torch.no_grad()
def _resize(encoder: Encoder, images: torch.Tensor) -> str:
    grids = [g for g in valid_grids(min(encoder.image_size)) if 1 < g <= 2 * encoder.native_grid[0]]
    differing = set()
    for method in [m for m in METHODS if m != "norm"]:
        for grid in grids:
            with bound(encoder, resize="pi"):
                usual = encoder(images[:1], grid).pooled
            with bound(encoder, resize=method):
                if not torch.equal(encoder(images[:1], grid).pooled, usual):
                    differing.add(method)
                    break
    if "resize" not in encoder.view_fields:
        require(not differing, "it is declared indifferent to `resize`, and is not")
        return "declared indifferent"
    require(bool(differing), "`resize` is among its view_fields and changes nothing")
    return f"{', '.join(sorted(differing))} differ from pi"


@torch.no_grad()
def _weights(encoder: Encoder, images: torch.Tensor, grid: int) -> str:
    own = copy.deepcopy(encoder)
    own(images, grid)  # what is kept of the weights is kept now
    before, changed = own.weights_hash(), 0
    for parameter in own.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
        changed += 1
    if not changed:
        return "it has no parameters"
    require(own.weights_hash() != before, "`weights_hash` does not see a change of weights")
    now = own(images, grid).pooled
    require(not torch.equal(now, encoder(images, grid).pooled), "changed weights are not used: something is cached")
    return ""


@torch.no_grad()
def _state(name: str, options: dict[str, Any], encoder: Encoder, images: torch.Tensor, grid: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        other = build_backbone(name, **options).eval()
    other.load_state_dict(encoder.state_dict())
    require(torch.equal(other(images, grid).pooled, encoder(images, grid).pooled), "another one with its state differs")


def _gradients(encoder: Encoder, images: torch.Tensor, grid: int) -> str:
    own = copy.deepcopy(encoder).train()
    trained = {n: p for n, p in own.named_parameters() if p.requires_grad}
    if not trained:
        return "it trains nothing"
    found = own(images, grid)
    (found.pooled.float().square().mean() + found.map.float().square().mean()).backward()
    reached = [n for n, p in trained.items() if p.grad is not None]
    require(bool(reached), "none of its parameters gets a gradient")
    sums = [float(p.grad.sum()) for p in trained.values() if p.grad is not None]
    finite = all(map(math.isfinite, sums))
    require(finite, "a gradient is not finite")
    return f"{len(reached)} of {len(trained)}"
