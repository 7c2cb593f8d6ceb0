"""Each form of a gradient measures and adds up as the whole gradient it stands for."""

from __future__ import annotations

import pytest
import torch
from forms import check_form
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.engine.training.per_example import gradients
from benchmarks.engine.training.per_example.gradients import Dense, ExampleGradients, Form, Product
from benchmarks.engine.training.per_example.layers import SeparateGradients


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["dense", "product", "rows"]), count=st.integers(1, 6), seed=st.integers(0, 999),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)  # fmt: skip
def test_a_form_is_worth_its_gradient(kind: str, count: int, seed: int, dtype: torch.dtype) -> None:
    check_form(kind, count, seed, dtype, "cpu", 1e-5)


@pytest.mark.parametrize("clip", [1e-2, 1e6])
def test_small_gradients_are_joined_and_large_ones_and_sums_of_forms_are_not(
    clip: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gradients.SMALL, "cpu", 8)
    random, count = torch.Generator().manual_seed(0), 3
    sizes = [(3,), (9,), (2, 4), (), (5,)]
    parameters = [torch.zeros(size) for size in sizes]
    values = [torch.randn(count, *size, generator=random) for size in sizes]
    own: list[list[Form]] = [[Dense(v)] for v in values[:-1]] + [[Dense(values[-1]), Dense(values[-1])], []]
    found = ExampleGradients([*parameters, torch.zeros(2)], count, own)
    small, joined = found._joined
    assert small == [0, 2, 3] and joined is not None and joined.shape == (count, 3 + 8 + 1)
    whole = [*values[:-1], 2 * values[-1]]
    norms = torch.cat([v.flatten(1) if v.ndim > 1 else v[:, None] for v in whole], 1).norm(dim=1)
    factors = found.factors(clip)
    assert torch.allclose(factors, (clip / (norms + 1e-6)).clamp(max=1.0))
    totals = [torch.ones(size) for size in [*sizes, (2,)]]
    found.add_to(totals, factors)
    for total, gradient in zip(totals, whole, strict=False):
        assert torch.allclose(total, 1 + torch.tensordot(factors, gradient, 1), atol=1e-5)
    assert torch.equal(totals[-1], torch.ones(2))


def test_a_device_that_nobody_measured_is_taken_as_a_cpu() -> None:
    nowhere = torch.zeros(2, 2, device="meta")
    parameters = [nowhere[0], nowhere[1]]
    found = ExampleGradients(parameters, 2, [[Dense(nowhere)], [Dense(nowhere)]])
    assert found._joined == ([], None) and list(found._slices([0, 1])) == [slice(0, 262144)]
    mode = SeparateGradients(2)
    mode.keep_product(parameters[0], torch.zeros(2, 1, 8, device="meta"), torch.zeros(2, 1, 24, device="meta"))
    (kept,) = mode._forms[id(parameters[0])]
    assert isinstance(kept, Product)
