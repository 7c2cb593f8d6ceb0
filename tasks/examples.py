"""Losses under `torch.func.vmap`, where every example has a gradient of its own."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch._C import _functorch as functorch


def apart(value: object) -> bool:
    """Whether a value differs between the examples of the `vmap` that is under way."""
    return isinstance(value, Tensor) and functorch.is_batchedtensor(value)


def at_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: under `vmap`, call `function` once with the examples of all calls, not traced for each.

    For what cannot be traced, such as matching on the host. All arguments and results (a tensor or a tuple of tensors)
    have the examples along their first axis, and no example changes the result of another. Outside of `vmap` it is
    `function` itself.

    Example: `@at_once` above `def matched(cost: Tensor) -> Tensor`, cost [B, M, N]
    """

    @functools.wraps(function)
    def once(*tensors: Tensor) -> Any:
        if not any(map(apart, tensors)):
            return function(*tensors)
        some = next(t for t in tensors if apart(t))
        # a tensor that all examples share has no axis to join
        return on_all(joined, *(t if apart(t) else _repeated(some, t) for t in tensors))

    def joined(*tensors: Tensor) -> Any:
        count = len(tensors[0])
        found = function(*(t.flatten(0, 1) for t in tensors))
        return map_results(lambda t: t.unflatten(0, (count, -1)), found)

    return once


def on_all(function: Callable[..., Any], *tensors: Tensor) -> Any:
    """Call `function` with plain tensors, the examples of `vmap` along their first axis; so are its results.

    Every tensor must be `apart`. Autograd sees the operations inside of `function`. What torch does for the `vmap` of
    an `autograd.Function`, without its 0.3 ms a call.
    """
    level = functorch.current_level()
    plain = [t.movedim(axis, 0) for t, axis in (functorch._unwrap_batched(t, level) for t in tensors)]
    with outside():
        found = function(*plain)
    return map_results(each_its_own, found)


@contextlib.contextmanager
def outside() -> Iterator[None]:
    """Outside of the `vmap` under way, whose stack of torch is put back after it."""
    inner = functorch.pop_dynamic_layer_stack()
    try:
        yield
    finally:
        functorch.push_dynamic_layer_stack(inner)


def each_its_own(values: Tensor) -> Tensor:
    """`values` [C, ...], of which each example of the `vmap` under way sees its own."""
    return functorch._add_batch_dim(values, 0, functorch.current_level())


def map_results(function: Callable[[Tensor], Tensor], found: Any) -> Any:
    """`function` of a tensor, or of each in a tuple."""
    return tuple(map(function, found)) if isinstance(found, tuple) else function(found)


def _repeated(some: Tensor, shared: Tensor) -> Tensor:
    return on_all(lambda examples: shared.expand(len(examples), *shared.shape), some)
