"""Gradients of C examples, in the form that is cheapest to keep: their norms, and their weighted sum."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

NORM_EPS = 1e-6  # as torch's clip_grad_norm_ adds to the norm
# Bytes of gradients that are made only to be measured: what a cache holds, and few passes where each waits for launches
SLICE_BYTES = {"cpu": 4 << 20, "cuda": 1 << 30}
# Numbers of a parameter whose gradients are joined with those of others: a launch each would cost more than the work
SMALL = {"cpu": 0, "cuda": 1 << 14}


def wide(dtype: torch.dtype) -> torch.dtype:
    """What numbers of a type are added up in."""
    return torch.promote_types(dtype, torch.float32)


@dataclass
class Dense:
    """`values` [C, *shape]."""

    values: Tensor

    def squares(self) -> Tensor:
        """Squared norms [C], in float32 at least."""
        return torch.linalg.vector_norm(
            self.values.reshape(len(self.values), -1), dim=1, dtype=wide(self.values.dtype)
        ).square()

    def add_to(self, total: Tensor, factors: Tensor) -> None:
        """Add the sum over examples, weighted by `factors` [C]."""
        values = self.values.reshape(len(self.values), -1)
        if not values.is_cuda or (values.dtype, total.dtype) != (torch.bfloat16, torch.float32):
            total.view(-1).addmv_(values.T.to(total.dtype), factors)
            return
        # read once, as they are: a factor is the sum of two numbers of their precision, to 16 bits
        high = factors.to(values.dtype)
        both = torch.stack([high, (factors - high).to(values.dtype)])
        total.view(-1).add_(torch.mm(both, values, out_dtype=total.dtype).sum(0))

    def dense(self, shape: torch.Size) -> Tensor:
        return self.values


@dataclass
class Product:
    """`rows.mT @ inputs` of a linear layer, [C, T, O] and [C, T, I], where that is larger than both."""

    rows: Tensor
    inputs: Tensor

    def squares(self) -> Tensor:
        # |G^T X|^2 is the sum of (G G^T) * (X X^T): T x T numbers instead of O x I (Goodfellow 2015, Li et al. 2022)
        return torch.linalg.vecdot(_gram(self.rows).flatten(1), _gram(self.inputs).flatten(1))

    def add_to(self, total: Tensor, factors: Tensor) -> None:
        weighted = self.rows * factors[:, None, None].to(self.rows.dtype)
        total.view(self.rows.shape[-1], -1).add_(weighted.flatten(0, 1).mT @ self.inputs.flatten(0, 1))

    def dense(self, shape: torch.Size) -> Tensor:
        return (self.rows.mT @ self.inputs).view(len(self.rows), *shape)


@dataclass
class Rows:
    """Gradients of an embedding's table: `values` [N, D] belong to row `row` [N] of the table of `example` [N]."""

    example: Tensor
    row: Tensor
    values: Tensor
    count: int

    def squares(self) -> Tensor:
        # an example may use a row more than once. Sorted, equal places are neighbours, as many as there may be: to ask
        # how many there are would be to wait for the device
        place, order = (self.row * self.count + self.example).sort(stable=True)
        where = (place.diff(prepend=place[:1]) != 0).cumsum(0)
        sums = torch.zeros_like(self.values).index_add_(0, where, self.values[order])
        squares = torch.linalg.vector_norm(sums, dim=1, dtype=wide(sums.dtype)).square()
        owner = torch.zeros_like(place).scatter_(0, where, place % self.count)
        return squares.new_zeros(self.count).index_add_(0, owner, squares)

    def add_to(self, total: Tensor, factors: Tensor) -> None:
        total.index_add_(0, self.row, (self.values * factors[self.example, None]).to(total.dtype))

    def dense(self, shape: torch.Size) -> Tensor:
        out = self.values.new_zeros(self.count, *shape)
        return out.index_put_((self.example, self.row), self.values, accumulate=True)


Form = Dense | Product | Rows


def _gram(rows: Tensor) -> Tensor:
    if rows.is_cuda and rows.dtype != torch.float32:
        return torch.bmm(rows, rows.mT, out_dtype=torch.float32)  # rounded sums would cancel badly
    rows = rows.to(wide(rows.dtype))
    return rows @ rows.mT


@dataclass
class ExampleGradients:
    """Gradients of C examples for each of `parameters`.

    `own[i]`: forms whose sum is the gradient of `parameters[i]`. `made`, `to_made`: tensors made of parameters alone,
    such as a resized kernel, and gradients [C, *shape] of them, which go on to the parameters by autograd.
    """

    parameters: Sequence[Tensor]
    count: int
    own: list[list[Form]]
    made: list[Tensor] = field(default_factory=list)
    to_made: list[Tensor] = field(default_factory=list)

    @torch.no_grad()
    def factors(self, clip: float) -> Tensor:
        """What `clip_grad_norm_` would multiply the gradient of each example with, [C]."""
        first = self.parameters[0]
        squares = torch.zeros(self.count, device=first.device, dtype=wide(first.dtype))
        small, joined = self._joined
        if joined is not None:
            squares += Dense(joined).squares()
        aside = {*self._further, *small}
        for place, forms in enumerate(self.own):
            if place in aside or not forms:
                continue
            shape = self.parameters[place].shape
            whole = (
                forms[0] if len(forms) == 1 else Dense(sum((f.dense(shape) for f in forms[1:]), forms[0].dense(shape)))
            )
            squares += whole.squares()
        for part in self._slices(self._further):
            given = [g[part] for g in self.to_made]
            wanted = [self.parameters[i] for i in self._further]
            passed = torch.autograd.grad(self.made, wanted, given, retain_graph=True, is_grads_batched=True)
            for place, gradient in zip(self._further, passed, strict=True):
                for form in self.own[place]:
                    gradient = gradient + form.dense(self.parameters[place].shape)[part]
                squares[part] += Dense(gradient).squares()
        return (clip / (squares.sqrt() + NORM_EPS)).clamp(max=1.0)

    def add_to(self, totals: Sequence[Tensor], factors: Tensor) -> None:
        """Add the sum over examples, weighted by `factors` [C], to the total of each parameter."""
        small, joined = self._joined
        if joined is not None:
            flat = [totals[i].view(-1) for i in small]
            torch._foreach_add_(flat, list((factors.to(joined.dtype) @ joined).split([t.numel() for t in flat])))
        for place, forms in enumerate(self.own):
            for form in forms if place not in small else ():
                form.add_to(totals[place], factors)
        if self.made:
            sums = [torch.tensordot(factors.to(g.dtype), g, 1) for g in self.to_made]
            for total, gradient in zip(
                totals, torch.autograd.grad(self.made, self.parameters, sums, allow_unused=True), strict=True
            ):
                if gradient is not None:
                    total.add_(gradient)

    @cached_property
    def _joined(self) -> tuple[list[int], Tensor | None]:
        """Places of small parameters, and their gradients side by side, [C, N]."""
        most = SMALL.get(self.parameters[0].device.type, 0)
        small = {
            place: forms[0].values.reshape(self.count, -1)
            for place, (parameter, forms) in enumerate(zip(self.parameters, self.own, strict=True))
            if parameter.numel() <= most and len(forms) == 1 and isinstance(forms[0], Dense)
            and place not in self._further
        }  # fmt: skip
        if len(small) < 2:
            return [], None
        return list(small), torch.cat([v.to(wide(v.dtype)) for v in small.values()], 1)

    @cached_property
    def _further(self) -> list[int]:
        """Places of the parameters that `made` was made of."""
        if not self.made:
            return []
        zeros = [torch.zeros_like(t) for t in self.made]
        reached = torch.autograd.grad(self.made, self.parameters, zeros, allow_unused=True, retain_graph=True)
        return [i for i, g in enumerate(reached) if g is not None]

    def _slices(self, places: Sequence[int]) -> Iterator[slice]:
        if places:
            each = sum(self.parameters[i].numel() * 4 for i in places)
            room = SLICE_BYTES.get(self.parameters[0].device.type, SLICE_BYTES["cpu"])
            size = max(1, room // each)
            yield from (slice(i, i + size) for i in range(0, self.count, size))
