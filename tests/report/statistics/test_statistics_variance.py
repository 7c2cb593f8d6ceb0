"""Variances against the analysis of variance, plain loops and what must not change them."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student
from worlds import anova, arm, by_loops, mean_replicates, runs

from benchmarks.report.statistics.jackknife import (
    MAX_GROUPS,
    Groups,
    Replicates,
    deal_groups,
    replicates_of_sums,
    replicates_of_weights,
)
from benchmarks.report.statistics.variance import Arm, arm_of, estimate
from tasks.contract.task import sums_of_mean


def minus(a, b):
    return a[0] - b[0]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(2, 5))
def test_means_have_the_variances_of_a_two_way_layout(seed, seeds_a, seeds_b) -> None:
    a, b = runs(seed, 0.6, seeds_a, 40), runs(seed + 1, 0.5, seeds_b, 40)
    found = estimate(minus, [arm(a), arm(b)])
    joint = (a.mean(0) - b.mean(0)).var(ddof=1) / 40
    (_, seed_a, both_a), (_, seed_b, both_b) = anova(a), anova(b)
    assert found.value == pytest.approx(a.mean() - b.mean())
    assert found.parts.samples == pytest.approx(joint)
    assert found.parts.seeds == pytest.approx((seed_a, seed_b))
    assert found.parts.interaction == pytest.approx((both_a, both_b))
    total = max(joint + seed_a + seed_b - both_a - both_b, joint, seed_a + seed_b)
    assert found.se**2 == pytest.approx(total)
    spread = joint**2 / 39 + seed_a**2 / (seeds_a - 1) + seed_b**2 / (seeds_b - 1)
    assert found.df == pytest.approx(total**2 / spread)
    low, high = found.interval()
    half = student.ppf(0.975, found.df) * total**0.5
    assert (low, high) == pytest.approx((found.value - half, found.value + half))


def test_a_ratio_is_left_out_like_in_plain_loops() -> None:
    arms = [runs(i, 0.6 + 0.1 * i, seeds, 12) for i, seeds in enumerate((3, 2, 1))]

    def function(a, b, c):
        return (a - 0.1) / (0.5 * (b - 0.1) + 0.5 * (c - 0.1))

    found = estimate(lambda a, b, c: function(a[0], b[0], c[0]), [arm(a, trained=i < 2) for i, a in enumerate(arms)])
    samples, seeds, both = by_loops(function, arms)
    assert found.parts.samples == pytest.approx(samples)
    assert found.parts.seeds == pytest.approx(tuple(seeds)) and found.parts.seeds[2] == 0
    assert found.parts.interaction == pytest.approx(tuple(both))


def test_orders_of_samples_and_seeds_do_not_matter_and_swapped_arms_negate() -> None:
    a, b = runs(1, 0.6), runs(2, 0.7)
    order = np.random.default_rng(3).permutation(300)
    first = estimate(minus, [arm(a), arm(b)], floor=True)
    for one, other in ((a[:, order], b[:, order]), (a[[2, 0, 1]], b[[1, 2, 0]])):
        again = estimate(minus, [arm(one), arm(other)], floor=True)
        assert (again.value, again.se, again.df) == pytest.approx((first.value, first.se, first.df))
    swapped = estimate(minus, [arm(b), arm(a)], floor=True)
    assert (swapped.value, swapped.se, swapped.df) == pytest.approx((-first.value, first.se, first.df))


def test_a_single_run_says_something_of_its_weights_only_and_borrows_where_the_other_has_seeds() -> None:
    many, one = runs(1, 0.6, 3), runs(2, 0.7, 1)
    alone = estimate(minus, [arm(many[:1]), arm(one)])
    assert alone.scope == "weights" and alone.hollow and alone.seed_share == 0 and alone.df == pytest.approx(299)
    frozen = estimate(minus, [arm(many[:1], trained=False), arm(one, trained=False)])
    assert frozen.scope == "weights" and not frozen.hollow and frozen.se == alone.se
    lent = estimate(minus, [arm(many), arm(one)])
    s2, (_, _, both) = many.mean(1).var(ddof=1), anova(many)
    assert lent.scope == "recipes" and lent.borrowed and not lent.hollow
    assert lent.parts.seeds == pytest.approx((s2 / 3, s2), rel=1e-6)
    assert lent.parts.interaction == pytest.approx((both, 3 * both), rel=1e-6)
    parts = lent.parts
    assert lent.df == pytest.approx(parts.total**2 / (parts.samples**2 / 299 + (s2 / 3 + s2) ** 2 / 2), rel=1e-6)


def test_no_finite_set_shows_that_two_models_never_differ() -> None:
    same = np.ones((1, 98))
    assert estimate(minus, [arm(same), arm(same)], floor=True).se == pytest.approx(2**0.5 / 100)
    assert estimate(minus, [arm(same), arm(same)]).se == 0


def iou(sums: np.ndarray) -> np.ndarray:
    """Of summed counts [R, 2, C]."""
    return (sums[:, 0] / np.maximum(sums[:, 1], 1)).mean(1)


def blocks(seed: int, share: float, groups: Groups) -> Replicates:
    """mIoU of three classes in pictures of 10,000 pixels, of which about `share` are right."""
    union = np.random.default_rng(9).integers(2_000, 4_000, (groups.samples, 3))
    right = np.random.default_rng(seed).normal(share, 0.02, (groups.samples, 1)).clip(0, 1) * union
    return replicates_of_sums(np.stack([right.round(), union], 1), iou, groups)


def test_units_of_many_answers_show_by_themselves_how_much_they_vary() -> None:
    """25 blocks of ten pictures: a floor for 25 answers of right or wrong would be 10.8 points of mIoU."""
    groups = deal_groups(250, np.repeat(np.arange(25), 10))
    a, b = blocks(1, 0.6, groups), blocks(2, 0.59, groups)
    arms = [arm_of([[x]], 25) for x in (a, b)]
    assert not a.all_or_none and not arms[0].all_or_none
    found, plain = estimate(minus, arms, floor=True), estimate(minus, arms)
    left = a.without - b.without
    assert found.se == plain.se == pytest.approx((24 / 25 * ((left - left.mean()) ** 2).sum()) ** 0.5)
    assert found.half_width() < 0.01
    floor = 2**0.5 / 27
    same = arm_of([[dataclasses.replace(a, without=a.without.copy())]], 25)
    assert estimate(minus, [arms[0], same], floor=True).se == pytest.approx(floor)  # nothing is seen of how they differ
    one = dataclasses.replace(a, without=a.without + 1e-4 * (np.arange(25) == 7))
    assert estimate(minus, [arms[0], arm_of([[one]], 25)], floor=True).se == pytest.approx(floor)  # nearly nothing
    three = dataclasses.replace(a, without=a.without + 1e-4 * (np.arange(25) % 10 == 3))
    assert estimate(minus, [arms[0], arm_of([[three]], 25)], floor=True).se < 1e-3
    by_weights = replicates_of_weights(lambda weights: (weights @ np.linspace(0, 1, 250)) / weights.sum(1), groups)
    assert not by_weights.all_or_none


def test_answers_in_clusters_are_all_or_none_where_whole_clusters_are() -> None:
    right = np.repeat(np.arange(60) > 0, 5).astype(float)  # captions of 60 pictures, all right but those of one
    names = np.repeat(np.arange(60), 5)
    once = estimate(lambda x: x[0], [arm(right[None, ::5])], floor=True)
    five = estimate(lambda x: x[0], [arm(right[None], deal_groups(300, names))], floor=True)
    assert (five.value, five.se) == pytest.approx((once.value, once.se)) and once.se == pytest.approx(2**0.5 / 62)
    right[::7] = 0  # in between
    assert not mean_replicates(right, deal_groups(300, names)).all_or_none
    assert mean_replicates(right, deal_groups(300)).all_or_none
    many = np.repeat(np.arange(900) % 2, 2).astype(float)  # more clusters than groups: units count, not groups
    assert mean_replicates(many, deal_groups(1800, np.arange(1800) // 2)).all_or_none
    unlabelled = replicates_of_sums(*sums_of_mean(np.array([1.0, np.nan, 0.0])), deal_groups(3))
    assert unlabelled.all_or_none


def test_more_than_400_samples_are_dealt_at_random_whatever_the_order_of_the_file() -> None:
    groups = deal_groups(4000)
    assert groups.number == MAX_GROUPS and (np.bincount(groups.index) == 10).all() and groups.units == 4000
    assert (groups.index == np.random.default_rng(0).permutation(4000) % 400).all()
    assert (deal_groups(400).index == np.arange(400)).all()
    rng = np.random.default_rng(5)
    classes = np.repeat(np.linspace(0, 1, 40), 100)  # sorted by class; whole classes are right or wrong
    values = (rng.random((1, 4000)) < classes).astype(float)
    found = estimate(lambda a: a[0], [arm(values)]).parts.samples
    assert found == pytest.approx(values[0].var(ddof=1) / 4000, rel=0.25)


def test_clusters_stay_together_and_repeated_samples_add_nothing() -> None:
    a, b = runs(1, 0.6, 3, 200), runs(2, 0.7, 3, 200)
    plain = estimate(minus, [arm(a), arm(b)], floor=True)
    names = np.repeat([f"picture {i}" for i in range(200)], 5)
    groups = deal_groups(1000, names)
    assert (groups.number, groups.units, groups.samples) == (200, 200, 1000)
    five = estimate(minus, [arm(np.repeat(x, 5, axis=1), groups) for x in (a, b)], floor=True)
    assert (five.value, five.se, five.df) == pytest.approx((plain.value, plain.se, plain.df))
    careless = estimate(minus, [arm(np.repeat(x, 5, axis=1)) for x in (a, b)], floor=True)
    assert careless.parts.samples < plain.parts.samples / 3
    many = deal_groups(3000, np.arange(3000) // 2)
    assert many.number == 400 and many.units == 1500
    assert all(len(set(many.index[i : i + 2])) == 1 for i in range(0, 3000, 2))
    with pytest.raises(ValueError, match="2 cluster names for 3 samples"):
        deal_groups(3, np.array([0, 1]))


@pytest.mark.parametrize("samples", [37, 400, 903])
def test_sums_by_group_and_weights_in_blocks_are_one_metric(samples, monkeypatch) -> None:
    """A mean IoU of three classes, by sums of counts and by 0-1 weights."""
    counts = np.random.default_rng(0).integers(0, 50, (samples, 2, 3)).astype(float)
    counts[:, 1] += counts[:, 0]
    seen = []

    def resampled(weights):
        seen.append(weights.shape)
        assert set(np.unique(weights)) <= {0.0, 1.0}
        return iou(np.tensordot(weights, counts, 1))

    groups = deal_groups(samples)
    quick = replicates_of_sums(counts, iou, groups)
    monkeypatch.setattr("benchmarks.report.statistics.jackknife.BLOCK", 50 * samples)
    slow = replicates_of_weights(resampled, groups)
    assert len(seen) > 1 and max(rows for rows, _ in seen) <= 50
    assert quick.whole == pytest.approx(slow.whole) == pytest.approx(iou(counts.sum(0)[None])[0])
    np.testing.assert_allclose(quick.without, slow.without)
    np.testing.assert_allclose(quick.halves, slow.halves)
    left = np.stack([iou(counts[groups.index != k].sum(0)[None])[0] for k in range(groups.number)])
    np.testing.assert_allclose(quick.without, left)
    inside = groups.halves()[0][groups.index]
    expected = [iou(counts[own].sum(0)[None])[0] for own in (inside, ~inside)]
    np.testing.assert_allclose(quick.halves[0], expected)


def test_arms_of_other_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="different samples: 300 in 300 groups, 200 in 200 groups"):
        estimate(minus, [arm(runs(1, 0.5)), arm(runs(1, 0.5, samples=200))])
    with pytest.raises(ValueError, match="do not match"):
        Arm(np.zeros((3, 1)), np.zeros((2, 1, 5)), 5)
    with pytest.raises(ValueError, match="two groups of samples"):
        Arm(np.zeros((3, 1)), np.zeros((3, 1, 1)), 1)
    assert not mean_replicates(np.array([np.nan, 1.0]), deal_groups(2)).finite
