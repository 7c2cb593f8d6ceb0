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
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.utils.data import Dataset

Grid = tuple[int, int]


class TaskError(ValueError):
    """Something a user can mend: a wrong name, a missing file, a value out of range. One line."""


@dataclass(frozen=True)
class TaskCard:
    """What a task is, as data. `protocol` is part of every row's identity: raise it when a number may move.

    Example: `TaskCard("depth", "v1", metric="rmse", higher_is_better=False, image_size=480, splits={"test": 654})`
    """

    name: str
    protocol: str
    metric: str
    higher_is_better: bool = True
    image_size: int = 240
    splits: Mapping[str, int | None] = field(default_factory=dict)  # images a split must have; None: not fixed
    sources: Mapping[str, str] = field(default_factory=dict)  # where each missing part is to be had
    citation: str = ""
    licence: str = ""


@dataclass(frozen=True)
class Recipe:
    """How a task is fine-tuned. Steps 0 means nothing is trained (k-NN, zero-shot, studies)."""

    steps: int = 0
    batch: int = 512
    lr: float = 0.01
    lr_groups: Mapping[str, float] = field(default_factory=dict)  # parameter-name prefix -> factor on `lr`
    optimizer: str = "sgd"  # sgd (momentum .9) | adamw | adamw_bf16 | adam
    schedule: str = "cosine"  # cosine | poly | constant
    warmup: int = 0  # steps, linear from 0
    weight_decay: float = 0.0  # torch AdamW convention: multiplied by the learning rate
    decay_kernels_only: bool = True  # biases, norms, positions and tokens are never decayed
    clip: float | None = 1.0
    clip_per_example: bool = False
    drop_path: float = 0.0
    mixup: float = 0.0  # Beta parameter; 0 is off
    ema: float = 0.0
    accumulate: int = 1
    candidates: tuple[Mapping[str, Any], ...] = ()  # recipe changes that compete on minival
    coupled: bool = False  # the loss looks across the batch: never split it


def option(default: Any, stage: str, help: str = "") -> Any:
    """A field of `Options`; `stage` "train" changes weights (train key), "eval" only rows (row key)."""
    assert stage in ("train", "eval"), stage
    metadata = {"stage": stage, "help": help}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Options:
    """Base of a task's options. Fields are declared with `option(default, stage)`."""

    def stage(self, stage: str) -> dict[str, Any]:
        """The options that matter to `stage`, in declared order."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.metadata.get("stage") == stage}


@dataclass(frozen=True)
class View:
    """How a trained model is looked at: the grid, the resize method of kernels, and the task's own options."""

    grid: Grid
    resize: str = "pi"
    options: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.grid, int):
            object.__setattr__(self, "grid", (self.grid, self.grid))


def slice_targets(targets: Any, index: slice) -> Any:
    """Cut dicts, tuples, lists and tensors along the batch."""
    if isinstance(targets, Mapping):
        return {k: slice_targets(v, index) for k, v in targets.items()}
    if isinstance(targets, tuple):
        return tuple(slice_targets(v, index) for v in targets)
    return targets[index] if targets is not None else None


def mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The same dicts, tuples and lists with `function` of every tensor inside.

    Example: `mapped({"boxes": [boxes]}, lambda tensor: tensor.to("cuda"))`
    """
    from torch import Tensor

    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {k: mapped(v, function) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(mapped(v, function) for v in value)
    return value


@dataclass
class Batch:
    """A batch as the runner sees it: `len(batch)`, `batch[2:6]`, `batch.to(device)`, `batch.pin_memory()`.

    `ids` int64 [B] are dataset indices; `images` uint8 [B,3,H,W], or a list of uint8 [3,h,w] where sizes differ, or
    float [B,3,H,W] already normalised; `targets` is whatever `slice_targets` can cut; `features` is what
    `Task.locked_encoder` gave for the images, where the runner has kept it (then `images` is empty).
    """

    ids: Tensor
    images: Tensor | list[Tensor]
    targets: Any = None
    features: Any = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: slice) -> Batch:
        return Batch(
            self.ids[index], self.images[index], slice_targets(self.targets, index), slice_targets(self.features, index)
        )

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """`function` of every tensor."""
        return Batch(*(mapped(value, function) for value in (self.ids, self.images, self.targets, self.features)))

    def to(self, device: torch.device | str) -> Batch:
        """On `device`; out of pinned memory the call does not wait for the copy."""
        return self.mapped(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """In memory that a GPU reads by itself; what `DataLoader(pin_memory=True)` calls."""
        return self.mapped(lambda tensor: tensor.pin_memory())


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

        A training split may take `(index, epoch)` randomness through `dataset.sample(i, generator)`.
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

    def resampled(self, samples: Mapping[str, Any], weights: Any) -> Any:
        """The card's metric [draws] when sample i counts `weights[:, i]` times: what intervals are made of.

        `samples` are the arrays [N, ...] of a row's per-sample file. None where the metric cannot be had from them.
        """
        return None
