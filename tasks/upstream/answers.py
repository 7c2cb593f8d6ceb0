"""A teacher's answers in evaluation: it is asked once about each picture, however the views group the pictures."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor

KEPT = 4096  # pictures; a view waits for at most half of them. 16 MB of logits of 1,000 classes


class Answers:
    """Logits of the pictures that were asked about last, by their ids.

    Example: `Answers()([3, 4], batch.targets["teacher"], model.answers)` are logits `[2, K]` in float32
    """

    def __init__(self, kept: int = KEPT):
        self.kept = kept
        self._rows: OrderedDict[int, Tensor] = OrderedDict()

    def __call__(self, ids: list[int], pictures: Tensor, ask: Callable[[Tensor], Tensor]) -> Tensor:
        """Logits float32 [B, K] of pictures [B, C, H, W] with these ids; `ask` is given those that are new."""
        new = [place for place, i in enumerate(ids) if i not in self._rows]
        if new:
            found = ask(pictures if len(new) == len(ids) else pictures[new]).float()
            self._rows.update(zip((ids[place] for place in new), found.unbind(), strict=True))
        together = torch.stack([self._rows[i] for i in ids])
        while len(self._rows) > self.kept:
            self._rows.popitem(last=False)
        return together
