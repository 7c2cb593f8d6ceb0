"""Texts under a tower that is not trained: each is encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tasks.text.towers import CHUNK, encode_tokens, longest

Row = tuple[int, ...]  # tokens of a text


@dataclass(frozen=True)
class Asked:
    """Tokens of each text of each example, as numbers of the host: to look them up waits for no device.

    Part of a batch's targets; cut with it. Example: `Asked.of([tokenize(["a cup"]), tokenize(["a dog"])])[:1]`
    """

    examples: tuple[tuple[Row, ...], ...]

    @classmethod
    def of(cls, tokens: Sequence[Tensor]) -> Asked:
        """Of int64 [Q, L] of each example."""
        return cls(tuple(tuple(map(tuple, t.tolist())) for t in tokens))

    def __getitem__(self, index: slice) -> Asked:
        return Asked(self.examples[index])


def is_trained(tower: nn.Module) -> bool:
    """Whether any of its parameters asks for a gradient."""
    return any(p.requires_grad for p in tower.parameters())


class Encoded:
    """A table of the texts that a tower has encoded, none of them twice; made anew where the tower has changed.

    Example: `Encoded()(detector.text, batch.targets["asked"], width=99)`
    """

    def __init__(self) -> None:
        self._place: dict[Row, int] = {}
        self._table: Tensor | None = None
        self._state: Any = None

    @torch.no_grad()
    def __call__(self, tower: Any, asked: Asked, width: int) -> Tensor:
        """float32 [B, width, E], not normalised, without gradient; zeros where an example has fewer texts.

        The tower encodes in eval mode: dropped layers are for towers that learn.
        """
        state = _state(tower)
        if state != self._state:
            self._place, self._table, self._state = {}, None, state
        rows = dict.fromkeys(row for example in asked.examples for row in example)
        if new := [row for row in rows if row not in self._place]:
            self._add(tower, new)
        device = next(tower.parameters()).device
        places = torch.zeros(len(asked.examples), width, dtype=torch.int64)
        for i, example in enumerate(asked.examples):
            places[i, : len(example)] = torch.tensor([self._place[row] for row in example], dtype=torch.int64)
        if self._table is None:  # no example has a text
            return torch.zeros(*places.shape, tower.output_dim, device=device)
        return self._table[places.to(device, non_blocking=True)]

    def _add(self, tower: nn.Module, rows: Sequence[Row]) -> None:
        device, training = next(tower.parameters()).device, tower.training
        tokens = torch.tensor(rows, dtype=torch.int64)
        tokens = tokens[:, : longest(tokens)].to(device)
        try:
            found = torch.cat([encode_tokens(tower.eval(), part) for part in tokens.split(CHUNK)])
        finally:
            tower.train(training)
        before = found.new_zeros(1, found.shape[1]) if self._table is None else self._table  # place 0: no text
        self._place |= {row: len(before) + i for i, row in enumerate(rows)}
        self._table = torch.cat([before, found])


def _state(tower: nn.Module) -> Any:
    """What is other where weights were changed in place, moved or exchanged, or autocast rounds them."""
    first = next(tower.parameters())
    kind = first.device.type
    rounded = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    return [(p.data_ptr(), p._version) for p in tower.parameters()], rounded
