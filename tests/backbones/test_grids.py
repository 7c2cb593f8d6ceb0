"""Grid arithmetic and the grid of each training step."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbones.grids import PAPER_GRIDS, GridSchedule, grid_from_patch, parse_schedule, patch_size, valid_grids


@given(st.integers(1, 500), st.integers(1, 64))
def test_patch_and_grid_are_inverse_or_refused(side: int, grid: int) -> None:
    if side % grid == 0:
        assert grid_from_patch(side, patch_size(side, grid)) == (grid, grid)
    else:
        with pytest.raises(ValueError, match=f"grid {grid} does not divide.*{side} px; grids that do"):
            patch_size(side, grid)


def test_valid_grids_are_listed() -> None:
    assert valid_grids(120)[:8] == [1, 2, 3, 4, 5, 6, 8, 10]
    with pytest.raises(ValueError, match="8, 10, 12, 15"):
        patch_size(240, 19)


def test_random_grids_are_the_official_sequence(golden) -> None:
    stored = np.load(golden / "train.npz")["seqhw/first100"]
    schedule = GridSchedule("random", PAPER_GRIDS)
    assert [schedule.grid(step, 100)[0] for step in range(1, 101)] == stored.tolist()


def test_the_official_sequence_begins_as_published() -> None:
    schedule = GridSchedule("random", PAPER_GRIDS)
    assert [schedule.grid(s, 90)[0] for s in range(1, 13)] == [12, 16, 20, 30, 30, 16, 6, 6, 24, 12, 16, 20]


@given(st.integers(10, 400))
def test_curriculum_goes_coarse_to_fine_by_share(total: int) -> None:
    schedule = parse_schedule("curriculum:15,4,8")
    sides = [schedule.grid(s, total)[0] for s in range(1, total + 1)]
    assert sides == sorted(sides) and set(sides) == {4, 8, 15}
    assert max(abs(sides.count(g) - total / 3) for g in (4, 8, 15)) <= 1


def test_curriculum_by_cost_gives_each_grid_equal_tokens() -> None:
    schedule, total = parse_schedule("curriculum-cost:4,8"), 1000
    sides = [schedule.grid(s, total)[0] for s in range(1, total + 1)]
    assert sides.count(4) * 16 == pytest.approx(sides.count(8) * 64, rel=0.02)


def test_weights_choose() -> None:
    schedule = GridSchedule("random", (4, 8), weights=(0.0, 1.0))
    assert {schedule.grid(s, 50) for s in range(1, 51)} == {(8, 8)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("randm:5,8", "no grid schedule 'randm'"),
        ("a,b", "cannot read"),
        ("5,8", "cannot have 2 grids"),
        ("8x8x8", "cannot read"),
        ("8x", "cannot read"),
        ("random:4,8x10x2", "cannot read"),
    ],
)
def test_bad_schedules_say_why(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_schedule(text)


@pytest.mark.parametrize("text", ["8", "random:4,8,15", "curriculum:4,8,15", "curriculum-cost:5,10,15"])
def test_shares_are_those_of_the_steps(text) -> None:
    schedule, total = parse_schedule(text), 6000
    seen = Counter(schedule.grid(step, total) for step in range(1, total + 1))
    assert sum(schedule.shares().values()) == pytest.approx(1)
    for grid, share in schedule.shares().items():
        assert seen[grid] / total == pytest.approx(share, abs=0.02 if schedule.kind == "random" else 1e-3)
