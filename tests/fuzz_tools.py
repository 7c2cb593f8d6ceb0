"""A fuzz in two sizes: some examples in every run, thousands with `-m slow`."""

import copy
import inspect
import random
from collections.abc import Callable, Sequence
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


def places(value: object, above: tuple = ()) -> list[tuple]:
    """Every place of nested dicts and lists, as keys from the top; the first is the whole."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [above, *(p for k, v in inner for p in places(v, (*above, k)))]


def damaged(whole: Any, chance: random.Random, odd: Sequence[object], wrap: bool = False) -> Any:
    """A copy in which one value is removed, doubled, renamed, put into a list (`wrap`), or replaced by one of `odd`."""
    whole = copy.deepcopy(whole)
    chosen = [p for p in places(whole) if p]
    if not chosen:
        return whole
    place, holder = chance.choice(chosen), whole
    for key in place[:-1]:
        holder = holder[key]
    key, how = place[-1], chance.randrange(5 if wrap else 4)
    if how == 0:
        del holder[key]
    elif how == 1 and isinstance(holder, list):
        holder.insert(key, holder[key])
    elif how == 2 and isinstance(holder, dict):
        holder[f"{key}_"] = holder.pop(key)
    elif how == 3 and wrap:
        holder[key] = [holder[key]]
    else:
        holder[key] = copy.deepcopy(chance.choice(odd))
    return whole
