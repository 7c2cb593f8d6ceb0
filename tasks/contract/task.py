"""The contract between a downstream task and the engine.

A task brings data, a head, a loss, a prediction and a meter. It never sees loops, devices, precision, resize methods or
result files; the engine owns those. The grid is an explicit argument everywhere and no parameter depends on it.

A plan asks a task what it is and what data it lacks, and must not wait seconds for torch: modules that describe (this
one, adapters, data sets) import torch, and the modules that compute, in the methods that compute.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np

from backbones.contract import bound
from tasks.contract.batch import Batch
from tasks.contract.card import TaskCard, TrainingWork
from tasks.contract.errors import TaskError
from tasks.contract.options import Hidden, Options
from tasks.contract.recipe import Recipe
from tasks.contract.view import Grid, View

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.utils.data import Dataset

SAMPLED = 1000  # samples of a split that the default fingerprint reads


def without_gradients(method: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.no_grad()` around a method, for modules that load without torch.

    Example: `@without_gradients` above `def predict(self, model, batch, grid, prepared)`
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
        """`(view, metrics in their own units, per-sample values with "ids" or None)` of each view that was seen.

        A meter may have `drop(view)`, which forgets a view whose predictions turned out not to be finite, and
        `narrow(part, ids)`, which is called before anything else where a smoke test evaluates only these samples.
        """
        ...


class Start(Protocol):
    """Weights that a new model starts from, beside those of its backbone."""

    def lacking(self) -> Sequence[Any]:
        """What of them is missing, each with what helps; a plan asks, so nothing is fetched."""
        ...

    def content(self) -> str:
        """Hash of the weights, part of the train key; empty where the task's options say all."""
        ...

    def told(self) -> str:
        """One line for the rows that come of it."""
        ...

    def load(self, model: nn.Module) -> None:
        """Put them into a model that `Task.model` made."""
        ...


class Task:
    """Base class of tasks. A plug-in overrides `card`, `recipe`, `dataset`, `model`, `loss`, `predict`, `meter`.

    Example::

        task = build_task("classification", root="data", options={"data": "cars98"})
        model = task.model(build_backbone("flexivit_nano"))
        loss = task.loss(model, batch, grid=(8, 8))["loss"]
    """

    card: TaskCard  # of the class, or of an instance whose options decide it
    recipe: Recipe = Recipe()
    gathers: ClassVar[bool] = False  # does a coupled loss look across the batches of all processes of a group?
    skippable: ClassVar[bool] = False  # does the score keep its meaning over fewer pictures, where a user skips some?
    untrained: str = ""  # why nothing is trained under these options, so that no recipe has steps; empty: it is
    one_width: bool = False  # pad to the widest there can be, not to a batch's widest; see `compiled`
    trained_on: str = "cpu"  # the kind of device that trains; see `training_on`
    Options: ClassVar[type[Options]] = Options

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        own = cls.__dict__.get("Options")
        if own is not None and "__dataclass_fields__" not in own.__dict__:
            raise TypeError(f"{own.__qualname__}: write @dataclass(frozen=True) above it")

    def __init__(self, root: str | Path = ".", options: Mapping[str, Any] | None = None, seed: int = 0):
        """`options` are those that a user sets. Raises: TaskError for an unknown name or a value of another type."""
        self.root, self.seed = Path(root), seed
        try:
            self.options = self.Options.made(options)
        except TaskError as error:
            raise TaskError(f"{type(self).__name__}: {error}") from None

    # how the engine evaluates and trains; not to be overridden
    def at(self, view: View) -> Self:
        """This task with the view's options in place; it shares what is loaded.

        What depends on an option of evaluation is computed where it is used, not in `__init__`.

        Raises: TaskError for an option that the task has not, or that changes weights.

        Example: `build_task("classification", options={"protocol": "knn"}).at(View(8, options={"neighbours": 5}))`
        """
        if not view.options:
            return self
        return self._with(self.options.changed(dict(view.options), "eval"))

    @contextlib.contextmanager
    def viewing(self, model: nn.Module, view: View) -> Iterator[Self]:
        """`at(view)`, with the backbone of `model` bound to the view, for the length of a block.

        Example: `with task.viewing(model, view) as own: records = own.predict(model, batch, view.grid, prepared)`
        """
        own = self.at(view)
        with bound(model, **view.bindings):
            yield own

    def compiled(self) -> Self:
        """This task for a step that a compiler traces: what it pads, it pads to one width (`one_width`)."""
        own = copy.copy(self)
        own.one_width = True
        return own

    def training_on(self, kind: str) -> Self:
        """This task for training on a kind of device, cpu or cuda: on a GPU `augment` may do what else a data set does,
        by the same law (`moved`).

        Example: `task.training_on("cuda").dataset("train")`
        """
        if kind == self.trained_on:
            return self
        own = copy.copy(self)
        own.trained_on = kind
        return own

    def in_training(self) -> Self:
        """This task without its options of evaluation: reading one is an error, because it is in no train key."""
        hidden = self._names(lambda about: about["stage"] == "eval")
        return self._with(Hidden(self.options, hidden, "training", 'mark it "train"')) if hidden else self

    def reading(self, view: View) -> Self:
        """`at(view)`, as its data sets see it: only the options that are marked for data can be read."""
        hidden = self._names(lambda about: not about["data"])
        own = self.at(view)
        return own._with(Hidden(own.options, hidden, "dataset", "mark it data=True")) if hidden else own

    def data_options(self, view: View) -> tuple[tuple[str, Any], ...]:
        """The options of a view that change its pictures: views that agree in them share a pass over the data."""
        marked = self._names(lambda about: about["stage"] == "eval" and about["data"])
        return tuple((name, value) for name, value in view.options if name in marked)

    def _names(self, wanted: Callable[[Mapping[str, Any]], bool]) -> list[str]:
        return [f.name for f in dataclasses.fields(self.Options) if wanted(f.metadata)]

    def _with(self, options: Any) -> Self:
        own = copy.copy(self)
        own.options = options
        return own

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

    def predict(self, model: nn.Module, batch: Batch, grid: Grid, prepared: Any) -> dict[str, Tensor]:
        """Records, each a tensor with one entry per sample. Pure: out of memory repeats it on half the batch.

        `self.options` are those of the view, and `model.backbone` is bound to the view already. `prepared` is what
        `prepare` gave.
        """
        raise NotImplementedError

    def meter(self, split: str) -> Meter:
        raise NotImplementedError

    # with defaults
    def missing(self) -> list[str]:
        """What of the data is missing, each with where to get it; empty when all is there.

        A task may take `splits: tuple[str, ...] = ()`; then it is asked for the reported splits only.
        """
        return []

    def fingerprint(self, split: str) -> str:
        """Hash of what a split holds: names, labels and bytes. Part of the keys of all that reads the split.

        By default of the samples themselves: of all of them, or of about a thousand, which the text says then.
        """
        dataset = self.dataset(split)
        count: int = len(dataset)  # type: ignore[arg-type]
        every = -(-count // SAMPLED) or 1
        digest = hashlib.sha256(str(count).encode())
        for i in range(0, count, every):
            _digest(digest.update, dataset[i])
        return digest.hexdigest()[:16] + (f" (1 in {every})" if every > 1 else "")

    def collate(self, samples: Sequence[tuple[int, Any, Any]]) -> Batch:
        """`[(index, image, target)] -> Batch`; stacks images of one size and tensor-like targets."""
        import torch

        ids, images, targets = zip(*samples, strict=True)
        same = all(i.shape == images[0].shape for i in images)
        stacked = torch.stack(images) if same else list(images)
        together: Any = list(targets)
        if all(isinstance(t, int | float) for t in targets):
            together = torch.tensor(targets)
        elif all(isinstance(t, torch.Tensor) and t.shape == targets[0].shape for t in targets):
            together = torch.stack(targets)
        return Batch(torch.tensor(ids), stacked, together)

    def augment(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
        """Batch augmentation on the device, after the backbone's normalisation (mixup and the like)."""
        return batch

    def moved(self) -> list[str]:
        """What `augment` does in place of the data set, because of the device that trains; a row says it."""
        return []

    def locked_encoder(self, model: nn.Module) -> Callable[[Tensor, Grid], Tensor] | None:
        """`(images, grid) -> [B, ...]` of a tower that is never trained, where training images are not augmented.

        The runner then keeps its output for each grid and hands it back as `batch.features`; the data set may offer
        `target(i, generator)`, so that no picture is decoded either. None: every step sees images.
        """
        return None

    def training_work(self) -> TrainingWork:
        """What a plan counts of training, beside `passes` of evaluation."""
        return TrainingWork(passes=1) if self.recipe.lr_groups.get("backbone") == 0 else TrainingWork()

    def passes(self, view: View) -> tuple[Grid, ...]:
        """The grids at which a picture goes through the backbone under a view: its cost is their sum.

        Example: `(view.grid, (8, 8))` of a prediction that is averaged with that at grid 8
        """
        return (view.grid,)

    def start(self, backbone: str) -> Start | None:
        """Weights that a new model with this backbone starts from, beside the backbone's; None: there are none.

        The engine loads them before training, or before evaluation where nothing is trained, and never where trained
        weights follow: a kept model can be opened without them.
        """
        return None

    def indifferent(self) -> Mapping[str, str]:
        """Options and fields of a view that change nothing here, and why: `check task` demands it of all others.

        Example: `{"neighbours": "nothing votes in fine-tuning"}`
        """
        return {}

    def before_training(self, model: nn.Module, batches: Iterator[tuple[Batch, Grid]]) -> None:
        """Once before the first step: statistics of the training pictures that the model keeps in its buffers.

        `batches` are some thousand pictures as they are trained on, at the grids of the schedule in turn, the same in
        every process. Nothing is read where a task does not override it.
        """

    def choices(self) -> list[dict[str, Any]]:
        """Options of evaluation that compete on minival at the training grid after training; only the best is reported.

        A view that sets one of them itself keeps its own value.
        """
        return []

    def parts(self, split: str) -> tuple[str, ...]:
        """The splits one sweep passes over, in order; k-NN passes over ("train", split)."""
        return (split,)

    def smoke(self, split: str, count: int, limit: int) -> Sequence[int]:
        """Places of the samples, of `count`, that a smoke test of `limit` evaluates, ascending; evenly spread.

        A task overrides it whose metric needs more: a second picture of a class, the answers of a query.
        """
        return [i * count // limit for i in range(limit)] if limit < count else range(count)

    def prepare(self, model: nn.Module, split: str) -> Any:
        """Once per pass: text embeddings, prompts. `self.options` and the backbone are those of the view.

        Views that agree in their options share it; where it has run the backbone, each binding has its own.
        """
        return None

    def views(self, grids: Sequence[Grid | int]) -> list[View]:
        """Plain views at some grids.  Example: `task.views([8, 15])`"""
        return [View(grid=g) for g in grids]

    def pictures(
        self, model: nn.Module, split: str, samples: Mapping[View, Mapping[str, Any]], device: torch.device | str
    ) -> list[tuple[str, Any]]:
        """`[(caption, PIL image)]` for the report: a few samples, each seen at the views of `samples` side by side.

        `samples` are the per-sample values of the meter's rows. The model is in eval mode on `device`. What predicts
        anew does so in `with self.viewing(model, view) as own`.
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


def sums_of_mean(values: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """`Task.sums` of a mean of per-sample values [N]; NaN values are left out.

    Example: `terms, metric = sums_of_mean(right); metric(terms.sum(0)[None])` is the mean
    """
    known = np.isfinite(values)
    terms = np.stack([np.where(known, values, 0.0), known], 1).astype(np.float64)
    return terms, lambda sums: sums[:, 0] / np.maximum(sums[:, 1], 1e-12)


def _digest(update: Callable[[bytes], None], value: Any) -> None:
    """Feed a sample: tensors and arrays by dtype, shape and bytes, containers in order, all else by its repr."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().contiguous().numpy()
    if hasattr(value, "tobytes"):
        update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            update(f"{key}:".encode())
            _digest(update, value[key])
    elif isinstance(value, list | tuple):
        update(f"[{len(value)}".encode())
        for item in value:
            _digest(update, item)
    else:
        update(f"{type(value).__name__}{value!r}".encode())
