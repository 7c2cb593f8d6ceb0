"""The contract between a downstream task and the runner.

A task brings data, a head, a loss, a prediction and a meter. It never sees loops, devices, precision or result files;
the runner owns those. The grid is an explicit argument everywhere and no parameter of a model depends on it.

A plan asks a task what it is and what data it lacks, and must not wait seconds for torch: modules that describe (this
one, adapters, data sets) import torch, and the modules that compute, in the methods that compute.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from tasks.contract.batch import Batch
from tasks.contract.card import TaskCard
from tasks.contract.errors import TaskError
from tasks.contract.options import Options
from tasks.contract.recipe import Recipe
from tasks.contract.view import Grid, View

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.utils.data import Dataset


def without_gradients(method: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.no_grad()` around a method, for modules that load without torch.

    Example: `@without_gradients` above `def predict(self, model, batch, view, prepared)`
    """

    @functools.wraps(method)
    def quiet(*args: Any, **kwargs: Any) -> Any:
        import torch

        with torch.no_grad():
            return method(*args, **kwargs)

    return quiet


class Meter(Protocol):
    """Sees every view of one pass; merges exactly across processes; gives rows."""

    def update(self, records: Mapping[str, Tensor], batch: Batch, view: View, part: str) -> None: ...

    def merge(self) -> None: ...

    def rows(self) -> list[tuple[View, dict[str, float], dict[str, Any] | None]]:
        """`(view, metrics as fractions 0-1, per-sample values with "ids" or None)`."""
        ...


class Task:
    """Base class of tasks. A plug-in overrides `card`, `recipe`, `dataset`, `model`, `loss`, `predict`, `meter`.

    Example::

        task = build_task("classification", root="data", options={"data": "cars98"})
        model = task.model(build_backbone("flexivit_nano"))
        loss = task.loss(model, batch, grid=(8, 8))["loss"]
    """

    card: ClassVar[TaskCard] | TaskCard
    recipe: Recipe = Recipe()
    skippable: ClassVar[bool] = False  # does the score keep its meaning over fewer pictures, where a user skips some?
    Options: ClassVar[type[Options]] = Options

    def __init__(self, root: str | Path = ".", options: Mapping[str, Any] | None = None, seed: int = 0):
        known = [f.name for f in dataclasses.fields(self.Options)]
        for name in options or {}:
            if name not in known:
                raise TaskError(f"{type(self).__name__} has no option {name!r}; it has: {', '.join(known) or 'none'}")
        self.root, self.options, self.seed = Path(root), self.Options(**(options or {})), seed

    # what a task must bring
    def dataset(self, split: str) -> Dataset:
        """Map-style and stateless: `dataset[i] -> (image uint8 CHW, target)`. Decodes once, never per grid.

        A training split may take `(index, epoch)` randomness through `dataset.sample(i, generator)`. Where it offers
        `stored(i) -> (image, target)` instead, before anything random, the engine may hold all pictures on the device
        (they must be of one size), and `augment` does the rest.
        """
        raise NotImplementedError

    def model(self, backbone: nn.Module) -> nn.Module:
        """Backbone (attribute `backbone`) and head. No parameter may depend on a grid."""
        raise NotImplementedError

    def loss(self, model: nn.Module, batch: Batch, grid: Grid) -> dict[str, Any]:
        """`{"loss": mean over count, "count": n, ...named scalars}`; micro-batches combine by count."""
        raise NotImplementedError

    def predict(self, model: nn.Module, batch: Batch, view: View, prepared: Any) -> dict[str, Tensor]:
        """Pure: records, each a tensor with one entry per sample. Out of memory repeats it on half the batch."""
        raise NotImplementedError

    def meter(self, split: str) -> Meter:
        raise NotImplementedError

    # with defaults
    def missing(self) -> list[str]:
        """What of the data is missing, each with where to get it; empty when all is there.

        A task may take `splits: tuple[str, ...] = ()`; then it is asked for the reported splits only.
        """
        return []

    def fingerprint(self) -> str:
        """Hash of the data as found (names, sizes, counts): part of the train key."""
        return ""

    def collate(self, samples: Sequence[tuple[int, Any, Any]]) -> Batch:
        """`[(index, image, target)] -> Batch`; stacks images of one size and tensor-like targets."""
        import torch

        ids, images, targets = zip(*samples, strict=True)
        same = all(i.shape == images[0].shape for i in images)
        stacked = torch.stack(images) if same else list(images)
        plain = all(isinstance(t, int | float) for t in targets)
        targets = torch.tensor(targets) if plain else list(targets)
        if not plain and all(isinstance(t, torch.Tensor) and t.shape == targets[0].shape for t in targets):
            targets = torch.stack(targets)
        return Batch(torch.tensor(ids), stacked, targets)

    def augment(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
        """Batch augmentation on the device, after the backbone's normalisation (mixup and the like)."""
        return batch

    def locked_encoder(self, model: nn.Module) -> Callable[[Tensor, Grid], Tensor] | None:
        """`(images, grid) -> [B, ...]` of a tower that is never trained, where training images are not augmented.

        The runner then keeps its output for each grid and hands it back as `batch.features`; the data set may offer
        `target(i, generator)`, so that no picture is decoded either. None: every step sees images.
        """
        return None

    def choices(self) -> list[dict[str, Any]]:
        """View options that compete on minival at the training grid after training; only the best meets the test."""
        return []

    def parts(self, split: str) -> tuple[str, ...]:
        """The splits one sweep passes over, in order; k-NN passes over ("train", split)."""
        return (split,)

    def prepare(self, model: nn.Module, split: str) -> Any:
        """Once per sweep: text embeddings, prompts."""
        return None

    def views(self, grids: Sequence[Grid | int]) -> list[View]:
        return [View(grid=g) for g in grids]

    def pictures(
        self, model: nn.Module, split: str, samples: Mapping[View, Mapping[str, Any]], device: torch.device | str
    ) -> list[tuple[str, Any]]:
        """`[(caption, PIL image)]` for the report: a few samples, each seen at the views of `samples` side by side.

        `samples` are the per-sample values of the meter's rows. The model is in eval mode on `device`.
        """
        return []

    def sums(self, samples: Mapping[str, Any]) -> tuple[Any, Callable[[Any], Any]] | None:
        """What of each sample the card's metric adds up: terms [N, ...], and the metric [R] of their sums [R, ...].

        `samples` are the arrays [N, ...] of a row's per-sample file. A task with such a metric (accuracy, recall, IoU)
        gives this, and its intervals cost one pass over the samples. None: the metric is no function of sums.

        Example: `return np.stack([right, np.ones_like(right)], 1), lambda sums: sums[:, 0] / sums[:, 1]`
        """
        return None

    def resampled(self, samples: Mapping[str, Any], weights: Any) -> Any:
        """The card's metric [R] when sample i counts `weights[:, i]` times: what intervals are made of.

        For a metric that is no function of sums (AP); else `sums` is enough. None where neither can be had from what is
        kept of each sample.

        Args: samples as of `sums`; weights float64 [R, N].
        """
        found = self.sums(samples)
        if found is None:
            return None
        terms, metric = found
        return metric((weights @ terms.reshape(len(terms), -1)).reshape(-1, *terms.shape[1:]))
