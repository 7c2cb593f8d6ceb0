"""The best, the cheap and sure one, and the front: against comparisons of two, clear cases and the winner's curse."""

import itertools

import numpy as np
import pytest
from scipy.stats import norm
from scipy.stats import t as student
from worlds import anova, arm, choice, mean_replicates, runs

from benchmarks.report.statistics.best import find_best, pair_errors
from benchmarks.report.statistics.draws import choice_of, deviations
from benchmarks.report.statistics.front import front_shares
from benchmarks.report.statistics.jackknife import deal_groups
from benchmarks.report.statistics.power import decidable, needs_samples, needs_seeds, rescaled
from benchmarks.report.statistics.retention import log_trapezoid, retain, retain_across, untrained_penalty
from benchmarks.report.statistics.variance import Parts, arm_of, estimate


def parts_of(samples: float, seed_sd: float = 0.0, seeds: int = 3, units: int = 1000, both: float = 0.0) -> Parts:
    """Of a difference of two arms alike."""
    own = -1 if seed_sd == 0 else 0
    lenders = (own, 1 if own == 0 else -1)
    return Parts(samples, (seed_sd**2 / seeds,) * 2, (both,) * 2, (seeds,) * 2, lenders, min(400, units), units)


def test_errors_of_all_pairs_are_those_of_comparisons() -> None:
    base = {name: runs(i, 0.6, 3, 120) for i, name in enumerate("abc")}
    later = np.where(np.random.default_rng(0).random((3, 120)) < 0.1, 0.0, base["a"])
    choices = [choice(n, v, 1.0) for n, v in base.items()] + [choice("a at 15", later, 2.0, "a")]
    errors = pair_errors(choices, deviations(choices), fraction=True)
    for i in range(3):
        for j in range(i):
            pair = estimate(lambda x, y: x[0] - y[0], [choices[i].arm, choices[j].arm], floor=True)
            assert (errors[i, j], errors[j, i]) == pytest.approx((pair.se, pair.se))
    groups = deal_groups(120)
    seeds = [[mean_replicates(x, groups) for x in pair] for pair in zip(base["a"], later, strict=True)]
    paired = estimate(lambda m: m[0] - m[1], [arm_of(seeds, 120)], floor=True)
    assert (errors[0, 3], errors[3, 0]) == pytest.approx((paired.se, paired.se))
    variance = deviations(choices)
    assert (variance.samples**2).sum(1)[0] == pytest.approx(anova(base["a"])[0])
    assert (variance.seeds**2).sum(1)[0] == pytest.approx(anova(base["a"])[1])
    assert variance.df == 6
    drawn = variance.draw(20_000)
    assert drawn.var(1) == pytest.approx(((variance.samples**2).sum(1) + 1.5 * (variance.seeds**2).sum(1)), rel=0.1)


def test_errors_of_pairs_have_the_floor_of_comparisons() -> None:
    """Pictures that are right or wrong; pictures of many answers; the same answers twice."""
    values = np.random.default_rng(0).random((2, 40))
    groups = deal_groups(40)
    whole = [choice("a", np.ones((1, 40)), 1.0), choice("b", np.ones((1, 40)), 2.0)]
    parts = [
        choice_of(n, [mean_replicates(v, groups)], 40, 1.0, n) for n, v in zip("cde", values[[0, 1, 1]], strict=True)
    ]
    choices = [*whole, *parts]
    errors = pair_errors(choices, deviations(choices), fraction=True)
    for i, j in itertools.permutations(range(5), 2):
        pair = estimate(lambda x, y: x[0] - y[0], [choices[i].arm, choices[j].arm], floor=True)
        assert errors[i, j] == pytest.approx(pair.se)
    assert errors[0, 1] == errors[3, 4] == pytest.approx(2**0.5 / 42)
    small = [choice_of(c.name, [mean_replicates(0.5 + v / 100, groups)], 40, 1.0, c.name)
             for c, v in zip(parts, values, strict=False)]  # fmt: skip
    assert pair_errors(small, deviations(small), fraction=True)[0, 1] < 0.001


def test_the_best_is_told_with_what_could_be_best_and_what_is_surely_as_good() -> None:
    n = 5000
    base = runs(1, 0.7, 1, n)
    almost = base.copy()
    almost[0, :3] = 1 - almost[0, :3]
    worse = np.where(np.arange(n) % 10 == 0, 0.0, base)
    choices = [choice("dear", base, 9.0), choice("cheap", almost, 2.0), choice("bad", worse, 1.0)]
    found = find_best(choices, margin=0.01)
    assert set(found.could_be) == {0, 1} and found.cheapest == 1
    assert found.could_be[0] == found.measured
    less = find_best([choice(c.name, 1 - v, c.cost) for c, v in zip(choices, (base, almost, worse), strict=True)], 0.01,
                     higher=False)  # fmt: skip
    assert set(less.could_be) == {0, 1} and less.cheapest == 1 and less.halved == pytest.approx(1 - found.halved)
    assert find_best(choices, margin=1e-5).cheapest is None  # none can be shown
    small = [choice(f"c{i}", runs(i, 0.6, 1, 60), float(i)) for i in range(5)]
    few = find_best(small, margin=0.01)
    assert len(few.could_be) == 5 and few.cheapest is None
    unpriced = [choice(c.name, v, None) for c, v in zip(choices, (base, almost, worse), strict=True)]
    assert find_best(unpriced, 0.01).cheapest is None
    assert find_best(choices[:1], 0.01).could_be == (0,)
    with pytest.raises(ValueError, match="nothing to choose"):
        find_best([], 0.01)
    with pytest.raises(ValueError, match="different samples"):
        find_best([choices[0], small[0]], 0.01)


def test_the_best_of_equals_is_not_as_good_as_it_was_measured() -> None:
    """Thirty coins: the best of them shows more than half; chosen and measured on different halves it does not."""
    rng = np.random.default_rng(0)
    measured, halved = [], []
    for _ in range(20):
        coins = [choice(str(i), (rng.random((1, 240)) < 0.5).astype(float), 1.0) for i in range(30)]
        found = find_best(coins, 0.01)
        measured.append(coins[found.measured].value)
        halved.append(found.halved)
    assert np.mean(measured) > 0.55 and abs(np.mean(halved) - 0.5) < 0.02


def test_seeds_of_a_model_move_together_and_single_runs_borrow() -> None:
    noisy = np.stack([np.arange(400) % 10 < k for k in (3, 6, 9)]).astype(float)
    other = np.tile(np.arange(400) % 10 < 6, (1, 1)).astype(float)
    choices = [choice("a 8", noisy, 1.0, "a"), choice("a 15", noisy, 2.0, "a"), choice("b", other, 1.0)]
    found = deviations(choices)
    np.testing.assert_allclose(found.seeds[0], found.seeds[1])
    assert (found.seeds[2] ** 2).sum() == pytest.approx(noisy.mean(1).var(ddof=1))
    assert not (found.seeds[2][:3]).any() and not found.seeds[0][3:].any()


def test_the_front_is_a_share_of_draws() -> None:
    n = 4000
    good, bad = runs(1, 0.8, 1, n), runs(2, 0.4, 1, n)
    clear = [choice("cheap", bad, 1.0), choice("dear", good, 2.0), choice("dear and bad", bad, 3.0)]
    assert front_shares(clear).tolist() == [1, 1, 0]
    assert front_shares(clear, higher=False).tolist() == [1, 0, pytest.approx(0, abs=0.01)]
    rng = np.random.default_rng(0)
    values = (rng.random((1, n)) < 0.5).astype(float)
    twin = rng.permuted(values, axis=1)  # the same accuracy, other pictures
    shares = front_shares([choice("a", values, 1.0), choice("b", twin, 1.0), choice("c", values, None)])
    assert shares[:2].sum() == pytest.approx(1) and abs(shares[0] - 0.5) < 0.05 and shares[2] == 0


def test_what_data_decide_by_the_textbook() -> None:
    """A fifth of the pictures differ, one grid: 8.1, 4.0, 1.8 and 0.6 points."""
    for units, points in ((240, 8.1), (1000, 4.0), (5000, 1.8), (50_000, 0.6)):
        assert round(100 * decidable(parts_of(0.2 / units, units=units), 1), 1) == points
    needed = needs_samples(parts_of(0.2 / 1000), 0.01, 7)
    z = student.ppf(1 - 0.05 / 14, 399) + student.ppf(0.8, 399)
    assert needed == int(np.ceil(0.2 * (z / 0.01) ** 2))
    assert z == pytest.approx(norm.ppf(1 - 0.05 / 14) + norm.ppf(0.8), rel=0.01)


def test_seeds_that_would_decide() -> None:
    noise = parts_of(1e-9, 0.01)
    seeds = next(
        s for s in range(2, 99)
        if (student.ppf(1 - 0.05 / 14, 2 * (s - 1)) + student.ppf(0.8, 2 * (s - 1))) * (2 * 0.01**2 / s) ** 0.5 <= 0.01
    )  # fmt: skip
    assert needs_seeds(noise, 0.01, 7) == seeds > 3
    assert needs_samples(noise, 0.01, 7) is None  # no number of pictures takes the noise of training away
    assert needs_seeds(parts_of(0.2 / 1000, 0.001), 0.01, 7) is None
    assert needs_seeds(noise, 0.5, 7) is None and needs_samples(noise, 0.5, 7) is None  # decided already
    mixed = parts_of(4e-5, 0.01, both=1e-5)
    assert rescaled(mixed, 1000, 3).total == pytest.approx(mixed.total)
    assert rescaled(mixed, 1000, 3).df == pytest.approx(mixed.df)
    far = rescaled(mixed, 10**9, 10**6)
    assert far.total == pytest.approx(0, abs=1e-9)
    only_samples = rescaled(mixed, 10**9)
    assert only_samples.total == pytest.approx(2 * (0.01**2 / 3 - 1e-5), rel=1e-3)


def test_retention_by_hand() -> None:
    np.testing.assert_allclose(log_trapezoid([1, 2, 8]), [1 / 6, 1 / 2, 1 / 3])
    np.testing.assert_allclose(log_trapezoid([8, 1, 2]), [1 / 3, 1 / 6, 1 / 2])
    np.testing.assert_allclose(log_trapezoid([5]), [1])
    np.testing.assert_allclose(log_trapezoid([5, 5]), [0.5, 0.5])
    with pytest.raises(ValueError, match="above 0, not 0"):
        log_trapezoid([0, 1])
    flexible = [[mean_replicates(np.arange(100) < k, deal_groups(100)) for k in (40, 60)]]
    special = {"8": arm((np.arange(100) < 50)[None] * 1.0), "15": arm((np.arange(100) < 70)[None] * 1.0)}
    found = retain(arm_of(flexible, 100), special, [1.0, 2.0], chance=0.2)
    assert found.estimate.value == pytest.approx((0.2 + 0.4) / (0.3 + 0.5)) and found.estimate.hollow
    assert found.gaps == pytest.approx((0.1, 0.1)) and found.worst[1] == pytest.approx(0.1)
    assert retain(arm_of(flexible, 100), special, [1.0, 2.0], chance=0.65) is None
    errors = retain(arm_of(flexible, 100), special, [1.0, 2.0], chance=0.8, higher=False)
    assert errors.estimate.value == pytest.approx((0.4 + 0.2) / (0.3 + 0.1)) and errors.gaps == pytest.approx(
        (-0.1,) * 2
    )
    with pytest.raises(ValueError, match="2 specialists, 2 grids, 1 costs"):
        retain(arm_of(flexible, 100), special, [1.0], chance=0.2)


def test_retention_over_tasks_is_a_geometric_mean() -> None:
    one = retain_across([(0.9, 0.02, 8.0)])
    half = student.ppf(0.975, 8) * 0.02 / 0.9
    assert (one.mean, one.low, one.high, one.df) == pytest.approx((0.9, 0.9 * np.exp(-half), 0.9 * np.exp(half), 8))
    assert retain_across([(0.5, 0, 3.0), (2.0, 0, 3.0)]).mean == pytest.approx(1)
    with pytest.raises(ValueError, match="-0.1 has no geometric mean"):
        retain_across([(-0.1, 0.1, 3.0)])


def test_the_penalty_of_a_grid_that_was_never_trained() -> None:
    groups = deal_groups(100)
    seeds = [[mean_replicates(np.arange(100) < k, groups) for k in (40, 48, 60)]]
    found = untrained_penalty(arm_of(seeds, 100), (1.0, 2.0, 4.0))
    assert found.value == pytest.approx(0.02)
    assert untrained_penalty(arm_of(seeds, 100), (1.0, 2.0, 4.0), higher=False).value == pytest.approx(-0.02)
    with pytest.raises(ValueError, match="must rise"):
        untrained_penalty(arm_of(seeds, 100), (2.0, 1.0, 4.0))
