"""Names that come out of files run no code: `module:callable` is imported for names that the user typed alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_TRUSTED = ContextVar("trusted", default=True)


@contextmanager
def trusting(trust: bool) -> Iterator[None]:
    """Within the block, may `module:callable` be imported? Options that name further backbones are met by it too.

    Example: `with trusting(False): build_task(row.task, options=row.options)`
    """
    before = _TRUSTED.set(_TRUSTED.get() and trust)
    try:
        yield
    finally:
        _TRUSTED.reset(before)


def check_trusted(kind: str, name: str) -> None:
    """Raises: ValueError where `name` comes out of a file that is not trusted.

    Example: `check_trusted("task", "my_package:Depth")`
    """
    if not _TRUSTED.get():
        raise ValueError(f"{kind} {name!r} is code to be imported and run; pass --trust if you trust its origin")
