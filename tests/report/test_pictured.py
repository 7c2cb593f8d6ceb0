"""Strips of pictures hold what a reader looks for: the ends, the grids of the training, and the best one."""

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.engine.running.pictured import PICTURED, pictured
from tasks.contract import Metric, View

GRIDS = st.lists(st.integers(2, 60), min_size=1, max_size=12, unique=True)


@given(GRIDS, GRIDS, st.integers(0, 10**6))
def test_ends_training_and_the_best_are_always_shown(evaluated, trained, luck) -> None:
    values = {View(g): {"top1": (g * 7919 + luck) % 1009 / 1009} for g in evaluated}
    shown = [v.grid[0] for v in pictured(values, Metric("top1"), [(g, g) for g in trained])]
    best = max(values, key=lambda v: values[v]["top1"]).grid[0]
    assert shown == sorted(set(shown)) and set(shown) <= set(evaluated)
    assert {min(evaluated), max(evaluated), best, *(set(trained) & set(evaluated))} <= set(shown)
    assert len(shown) >= min(PICTURED, len(evaluated)) or len(evaluated) < 2 * PICTURED
    assert len(shown) <= max(PICTURED, 3 + len(trained))


def test_lower_is_better_and_several_views_of_a_grid() -> None:
    """Seven grids were evaluated and the training grid was not among the evenly spaced ones."""
    values = {View(g): {"rmse": float(g != 24)} for g in (8, 10, 12, 16, 20, 24, 30)}
    shown = pictured(values, Metric("rmse", "m", higher_is_better=False), [(10, 10)])
    assert [v.grid[0] for v in shown] == [8, 10, 24, 30]
    many = {View(g, resize=r): {"top1": float(g == 8 and r == "area")} for g in (4, 8, 15) for r in ("pi", "area")}
    shown = [(v.grid[0], v.resize) for v in pictured(many, Metric("top1"), [])]
    assert len(shown) == PICTURED and {(4, "pi"), (8, "area"), (15, "pi")} <= set(shown)
    assert pictured({View(4): {"top1": 0.1}}, Metric("top1"), [(8, 8)]) == [View(4)]
