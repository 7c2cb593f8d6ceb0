"""What all tasks on labelled pictures share: the set, its splits, what is missing of them, accuracy."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.contract import Task
from tasks.contract.task import sums_of_mean
from tasks.data.errors import DataError
from tasks.data.sets.labelled import LabelledSet
from tasks.data.splits import Labelled

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tasks.contract.meters import Records


class LabelledTask(Task):
    """A task whose pictures have a class. Subclasses set `data` before anything is asked."""

    skippable = True
    data: LabelledSet

    @functools.cached_property
    def _loaded(self) -> dict[str, Labelled]:
        return {}

    def labelled(self, split: str) -> Labelled:
        """Names, labels and encoded pictures of a split, listed once."""
        if split not in self._loaded:
            self._loaded[split] = self.data.load(split)
        return self._loaded[split]

    @functools.cached_property
    def classes(self) -> int:
        return len(self.labelled("train").classes)

    def reads(self, splits: tuple[str, ...] = ()) -> tuple[str, ...]:
        """The splits that a run reads which reports on `splits`; () stands for the first of the set."""
        return ("train", *(splits or self.data.reported[:1]))

    def missing(self, splits: tuple[str, ...] = ()) -> list[DataError]:
        return self.data.problems(self.reads(splits))

    def fingerprint(self, split: str = "train") -> str:
        return self.labelled(split).fingerprint

    def allowed(self, split: str) -> Tensor | None:
        """bool [C] of labels that may be predicted, None for all."""
        allowed = self.labelled(split).allowed
        if allowed is None:
            return None
        import torch

        mask = torch.zeros(self.classes, dtype=torch.bool)
        mask[list(allowed)] = True
        return mask

    def prepare(self, model: nn.Module, split: str) -> Any:
        return self.allowed(split)

    def _scores(self, records: Records) -> dict[str, float]:
        from tasks.classification.scoring import accuracy

        return accuracy(records) | {"chance_top1": 1 / self.classes}

    def sums(self, samples: Mapping[str, Any]) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        ranked, label = samples["ranked"], samples["label"].reshape(len(samples["label"]), -1)
        values = np.where((label >= 0).any(1), (ranked[:, :1] == label).any(1), np.nan)
        return sums_of_mean(values)
