"""Gradients of examples on a GPU: forms in bfloat16, whose sums are wider, and no wait for the device."""

import os

import pytest
import torch
from training.per_example.forms import check_form, form_of

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", autouse=True)
def device() -> str:
    if os.environ.get("FLEXIVIT_GPU_TESTS_ON") == "cpu":  # to try the tests themselves where there is no GPU
        return "cpu"
    if not torch.cuda.is_available():
        pytest.skip("this torch sees no GPU")
    torch.backends.cuda.matmul.allow_tf32 = False
    return "cuda"


@pytest.mark.parametrize("kind", ["dense", "product", "rows"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_form_is_worth_its_gradient(device: str, kind: str, dtype: torch.dtype) -> None:
    for seed in range(5):
        # what is rounded to bfloat16 is the gradient that is given, or the product that is added
        check_form(kind, 4, seed, dtype, device, 1e-5 if dtype == torch.float32 or kind == "dense" else 1e-2)


@pytest.mark.parametrize("kind", ["dense", "product", "rows"])
def test_to_measure_and_to_add_waits_for_nothing(device: str, kind: str) -> None:
    if device != "cuda":
        pytest.skip("a CPU waits for itself")
    form, shape = form_of(kind, 4, 0, torch.bfloat16, device)
    total, factors = torch.zeros(shape, device=device), torch.ones(4, device=device)
    form.squares(), form.add_to(total, factors)  # what is made on first use may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        form.squares()
        form.add_to(total, factors)
    finally:
        torch.cuda.set_sync_debug_mode("default")
