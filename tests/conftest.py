"""Shared by all tests: few threads, where golden values lie, tiny random encoders."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:  # processes side by side: one thread each, and the same for what they start
    os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


# a shell starts what it runs in the background with Ctrl-C ignored, and children inherit that
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests remember of data is no one else's."""
    before = os.environ.get("FLEXIVIT_CACHE")
    os.environ["FLEXIVIT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ.pop("FLEXIVIT_CACHE")
    if before is not None:
        os.environ["FLEXIVIT_CACHE"] = before


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the official JAX values. They belong to no one's install, so only their owner's machine has them."""
    folder = os.environ.get("FLEXIVIT_GOLDEN")
    if not folder:
        pytest.skip("FLEXIVIT_GOLDEN is not set: the official JAX values are not at hand")
    return Path(folder)


def relative(found: object, expected: object) -> float:
    """max|a - b| / max|b|, the measure of all tolerances."""
    found, expected = (np.asarray(torch.as_tensor(v).detach().double()) for v in (found, expected))
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def tiny_leaves(
    width: int = 32, depth: int = 2, heads: int = 2, patch: int = 32, side: int = 7, classes: int = 5
) -> dict:
    """Random leaves in big_vision's layout."""
    rng = np.random.default_rng(0)

    def leaf(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.2).astype(np.float32)

    leaves = {"embedding/kernel": leaf(patch, patch, 3, width), "embedding/bias": leaf(width), "cls": leaf(1, 1, width)}
    leaves |= {
        "pos_embedding": leaf(1, side * side, width),
        "head/kernel": leaf(width, classes),
        "head/bias": leaf(classes),
    }
    leaves |= {"Transformer/encoder_norm/scale": leaf(width), "Transformer/encoder_norm/bias": leaf(width)}
    for i in range(depth):
        block = f"Transformer/encoderblock_{i}"
        for norm in ("LayerNorm_0", "LayerNorm_1"):
            leaves |= {f"{block}/{norm}/scale": leaf(width), f"{block}/{norm}/bias": leaf(width)}
        attention, dim = f"{block}/MultiHeadDotProductAttention_0", width // heads
        for part in ("query", "key", "value"):
            leaves |= {
                f"{attention}/{part}/kernel": leaf(width, heads, dim),
                f"{attention}/{part}/bias": leaf(heads, dim),
            }
        leaves |= {f"{attention}/out/kernel": leaf(heads, dim, width), f"{attention}/out/bias": leaf(width)}
        for name, inner, outer in (("Dense_0", width, 4 * width), ("Dense_1", 4 * width, width)):
            leaves |= {
                f"{block}/MlpBlock_0/{name}/kernel": leaf(inner, outer),
                f"{block}/MlpBlock_0/{name}/bias": leaf(outer),
            }
    return leaves


@pytest.fixture
def tiny_npz(tmp_path: Path) -> Path:
    """A big_vision checkpoint of width 32, two blocks, five classes."""
    path = tmp_path / "tiny.npz"
    np.savez(path, **{f"params/{k}": v for k, v in tiny_leaves().items()})
    return path
