"""A fuzz in two sizes: some examples in every run, thousands with `-m slow`."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings


def fuzzed(few: int, many: int, **drawn: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A test of values that hypothesis draws; its other arguments are fixtures and parameters.

    Example: `@fuzzed(50, 3000, at=st.integers(0, 9))` above `def test(tmp_path, at: int) -> None:`
    """

    def made(one: Callable[..., None]) -> Callable[..., None]:
        others = [p for name, p in inspect.signature(one).parameters.items() if name not in drawn]

        def test(examples: int, **asked: Any) -> None:
            checks = list(HealthCheck)

            @settings(max_examples=examples, deadline=None, suppress_health_check=checks, database=None)
            @given(**drawn)
            def each(**values: Any) -> None:
                one(**asked, **values)

            each()

        kind = inspect.Parameter.KEYWORD_ONLY
        names = [inspect.Parameter("examples", kind), *(p.replace(kind=kind) for p in others)]
        test.__signature__ = inspect.Signature(names)  # type: ignore[attr-defined]  # what pytest asks for
        test.__name__, test.__doc__, test.__module__ = one.__name__, one.__doc__, one.__module__
        test.pytestmark = getattr(one, "pytestmark", [])  # type: ignore[attr-defined]
        sizes = [pytest.param(few, id="few"), pytest.param(many, id="thousands", marks=pytest.mark.slow)]
        return pytest.mark.parametrize("examples", sizes)(test)

    return made
