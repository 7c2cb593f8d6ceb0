"""Forms of gradients with the whole gradient that each stands for."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.engine.training.per_example.gradients import Dense, Form, Product, Rows, wide


def form_of(kind: str, count: int, seed: int, dtype: torch.dtype, device: str = "cpu") -> tuple[Form, torch.Size]:
    random = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random).to(device, dtype)

    if kind == "dense":
        return Dense(drawn(count, 8, 24)), torch.Size((8, 24))
    if kind == "product":
        return Product(drawn(count, 5, 8), drawn(count, 5, 24)), torch.Size((8, 24))
    row = torch.randint(0, 6, (count, 7), generator=random).to(device)  # of seven, at least two are one row
    example = torch.arange(count, device=device)[:, None].expand_as(row)
    return Rows(example.flatten(), row.flatten(), drawn(count * 7, 24), count), torch.Size((9, 24))


def check_form(kind: str, count: int, seed: int, dtype: torch.dtype, device: str, rtol: float) -> None:
    """Its squared norms and its weighted sum, against those of the whole gradient in float64."""
    form, shape = form_of(kind, count, seed, dtype, device)
    factors = torch.rand(count, generator=torch.Generator().manual_seed(seed + 1)).to(device, wide(dtype))
    wanted = form.dense(shape).double()
    squares = wanted.flatten(1).square().sum(1)
    assert form.squares().dtype == wide(dtype) and torch.allclose(form.squares().double(), squares, rtol=rtol)
    total = torch.ones(shape, device=device, dtype=wide(dtype))
    form.add_to(total, factors)
    whole = 1 + torch.tensordot(factors.double(), wanted, 1)
    assert total.dtype == wide(dtype) and (total - whole).norm() <= rtol * whole.norm()
