"""Verdicts: against an analysis of variance with the procedures of statsmodels, and against each shortcut."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student
from statsmodels.stats.multitest import multipletests
from worlds import anova, arm, runs

from benchmarks.report.statistics.noninferiority import Rules, compare, holm
from benchmarks.report.statistics.retention import retain, retain_across
from benchmarks.report.statistics.variance import Arm

CHANCE = 0.1


def arms(values: dict[str, np.ndarray], **more) -> dict[str, Arm]:
    return {grid: arm(v, **more) for grid, v in values.items()}


def shifted(seed: int, gap: float, samples: int = 400, seeds: int = 3, base: float = 0.6) -> tuple:
    return runs(seed, base + gap, seeds, samples), runs(seed + 1000, base, seeds, samples)


def differing(better: int, worse: int = 14) -> tuple:
    """One run each, right in 200 of 400 pictures, but for so many in which only one of them is."""
    a, b = np.repeat([1.0, 0.0], 200)[None], np.repeat([1.0, 0.0], 200)[None]
    b[0, :better], a[0, 200 - worse : 200] = 0, 0
    return a, b


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.floats(-0.25, 0.15), st.integers(1, 4))
def test_verdicts_are_those_of_an_analysis_of_variance(seed, gap, seeds) -> None:
    grids = {g: shifted(seed + i, gap * i, 100, seeds) for i, g in enumerate(("4", "8", "15"))}
    found = compare(arms({g: a for g, (a, _) in grids.items()}), arms({g: b for g, (_, b) in grids.items()}),
                    Rules(0.02, 0.05, None)).verdicts  # fmt: skip
    p, t = [], []
    for (a, b), v in zip(grids.values(), found, strict=True):
        samples = max((a.mean(0) - b.mean(0)).var(ddof=1) / 100, 2 / 102**2)
        parts = [anova(x) for x in (a, b)]
        over_seeds, both = sum(x[1] for x in parts), sum(x[2] for x in parts)
        total = max(samples + over_seeds - both, samples, over_seeds)
        more = sum(x[1] ** 2 / (seeds - 1) for x in parts) if seeds > 1 else 0.0
        df = total**2 / (samples**2 / 99 + more)
        margin = min(0.02, 0.05 * b.mean())
        t.append((a.mean() - b.mean() + margin) / total**0.5)
        p.append(2 * student.sf(abs(t[-1]), df))
        half = student.ppf(0.975, df) * total**0.5
        assert v.signal and v.difference.scope == ("recipes" if seeds > 1 else "weights")
        assert (v.difference.se, v.difference.df, v.margin) == pytest.approx((total**0.5, df, margin), rel=1e-6)
        assert v.interval == pytest.approx((a.mean() - b.mean() - half, a.mean() - b.mean() + half), rel=1e-6)
        assert (v.t, v.p) == pytest.approx((t[-1], p[-1]), rel=1e-6)
        assert v.decidable == pytest.approx((student.ppf(1 - 0.05 / 6, df) + student.ppf(0.8, df)) * total**0.5)
        stop = student.ppf(1 - v.level / 2, df) * total**0.5
        assert v.yes_from == pytest.approx(max(0, stop - (a.mean() - b.mean())))
        assert v.no_below == pytest.approx(max(0, -stop - (a.mean() - b.mean())))
    rejected, adjusted, _, _ = multipletests(p, 0.05, "holm")
    for v, own, no, value, alone in zip(found, adjusted, rejected, t, p, strict=True):
        assert v.p_holm == pytest.approx(own, abs=1e-9)
        decided = "yes" if value > 0 else "no"
        assert v.verdict == (decided if no else "undecided")
        assert v.uncorrected == (decided if alone <= 0.05 else "undecided")


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_that_of_statsmodels_and_levels_agree_with_it(p) -> None:
    adjusted, level = holm(p)
    rejected, expected, _, _ = multipletests(p, 0.05, "holm")
    np.testing.assert_allclose(adjusted, expected, rtol=1e-12)
    assert ((np.array(p) <= level) == rejected).all()


def test_holm_by_hand() -> None:
    adjusted, level = holm([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(adjusted, [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(level, [0.05 / 3, 0.025, 0.025, 0.0125])


def test_a_grid_that_passes_alone_may_not_pass_among_several() -> None:
    """A difference whose p value lies between 0.05 / 4 and 0.05, beside three grids that show nothing."""
    lone, others = differing(15), [differing(8) for _ in range(3)]
    alone = compare(arms({"8": lone[0]}), arms({"8": lone[1]}), Rules(0.03, 1.0, CHANCE)).verdicts[0]
    assert 0.0125 < alone.p < 0.05 and alone.verdict == "yes"
    grids = {"8": lone, **dict(zip("456", others, strict=True))}
    found = compare(arms({g: a for g, (a, _) in grids.items()}), arms({g: b for g, (_, b) in grids.items()}),
                    Rules(0.03, 1.0, CHANCE))  # fmt: skip
    assert found.verdicts[0].verdict == "undecided" and found.verdicts[0].uncorrected == "yes"
    assert found.everywhere == "undecided"


def test_every_seed_counts_and_their_noise_is_in_the_verdict() -> None:
    """Runs of accuracies 0.9, 0.8 and 0.5 against 0.5: the first says yes, together they say nothing."""
    a = np.concatenate([runs(1, level, 1, 400, 0.01) for level in (0.9, 0.8, 0.5)])
    b = np.concatenate([runs(2, 0.5, 1, 400, 0.01) for _ in range(3)])
    rules = Rules(0.1, 1.0, CHANCE)
    first = compare(arms({"8": a[:1]}), arms({"8": b[:1]}), rules).verdicts[0]
    assert first.verdict == "yes" and first.difference.hollow
    found = compare(arms({"8": a}), arms({"8": b}), rules).verdicts[0]
    assert found.a == pytest.approx(a.mean()) and found.verdict == "undecided"
    assert found.difference.seed_share > 0.9 and found.needs_samples is None and found.needs_seeds > 3


def test_swapped_mirrored_and_itself() -> None:
    a, b = shifted(5, -0.05)
    rules = Rules(0.02, 0.05, CHANCE)
    plain = compare(arms({"8": a}), arms({"8": b}), rules).verdicts[0]
    swapped = compare(arms({"8": b}), arms({"8": a}), rules).verdicts[0]
    assert swapped.difference.value == -plain.difference.value and swapped.difference.se == plain.difference.se
    less = dataclasses.replace(rules, chance=1 - CHANCE, higher=False)
    mirror = compare(arms({"8": 1 - a}), arms({"8": 1 - b}), less).verdicts[0]
    for name in ("margin", "t", "p", "verdict", "signal", "ahead"):
        assert getattr(mirror, name) == pytest.approx(getattr(plain, name)), name
    assert mirror.difference.value == pytest.approx(plain.difference.value)
    tiny = runs(7, 0.6, 3, 20)
    itself = compare(arms({"8": tiny}, keys=("x", "y", "z")), arms({"8": tiny}, keys=("x", "y", "z")), rules)
    assert itself.everywhere == "yes" and itself.verdicts[0].interval == (0, 0) and not itself.verdicts[0].ahead
    alike = compare(arms({"8": tiny}), arms({"8": tiny}), rules)  # other runs that happen to agree are not itself
    assert alike.everywhere == "undecided"


def test_the_margin_shrinks_near_chance_and_is_that_of_its_own_fixed_model() -> None:
    rules = Rules(0.01, 0.05, CHANCE)
    assert rules.allowance(0.6) == (0.01, False)
    assert rules.allowance(0.2) == (pytest.approx(0.005), True)
    assert rules.allowance(0.05) == (0, True)
    assert Rules(None, 0.05, None).allowance(4.0) == (pytest.approx(0.2), True)
    assert Rules(0.1, 0.05, 3.0, higher=False).allowance(2.0) == (pytest.approx(0.05), True)
    weak = runs(1, 0.2, 3, 2000), runs(2, 0.2, 3, 2000)
    assert compare(arms({"8": weak[0]}), arms({"8": weak[1]}), rules).verdicts[0].margin < 0.0075
    with pytest.raises(ValueError, match="a margin must be a number from 0 on, not -1"):
        Rules(-1)


def test_neither_above_chance_is_empty_and_takes_no_part_in_the_correction() -> None:
    rng = np.random.default_rng(0)
    noise = [(rng.random((3, 400)) < 0.8 * CHANCE).astype(float) for _ in range(2)]
    good = shifted(3, 0.2)
    found = compare(arms({"4": noise[0], "8": good[0]}), arms({"4": noise[1], "8": good[1]}), Rules(0.01, 0.05, CHANCE))
    assert [v.verdict for v in found.verdicts] == ["empty", "yes"] and found.everywhere == "yes"
    assert found.verdicts[1].p_holm == found.verdicts[1].p
    only = compare(arms({"4": noise[0]}), arms({"4": noise[1]}), Rules(0.01, 0.05, CHANCE))
    assert only.everywhere == "empty"
    mixed = compare(arms({"4": noise[0]}), arms({"4": good[1]}), Rules(0.01, 0.05, CHANCE)).verdicts[0]
    assert mixed.verdict == "no"  # one above chance is a signal


def test_better_is_said_only_where_zero_is_excluded_too() -> None:
    a, b = shifted(3, 0.2)
    assert compare(arms({"8": a}), arms({"8": b}), Rules(0.01, 0.05, CHANCE)).verdicts[0].ahead
    little = differing(15)
    wide = compare(arms({"8": little[0]}), arms({"8": little[1]}), Rules(0.3, 1.0, CHANCE)).verdicts[0]
    assert wide.verdict == "yes" and wide.difference.value > 0 and not wide.ahead


def test_every_grid_alone_is_enough_for_all_of_them_and_one_no_is_a_no() -> None:
    """A claim of every grid fails where any of them does: it needs no correction."""
    pairs = {str(g): differing(15) for g in range(4)}
    a, b = (arms({g: pair[k] for g, pair in pairs.items()}) for k in (0, 1))
    found = compare(a, b, Rules(0.03, 1.0, CHANCE))
    assert {v.verdict for v in found.verdicts} == {"undecided"} and found.everywhere == "yes"
    worse = arms({"9": shifted(3, -0.4)[0]}) | a, arms({"9": shifted(3, -0.4)[1]}) | b
    assert compare(*worse, Rules(0.03, 1.0, CHANCE)).everywhere == "no"


def test_a_third_model_changes_no_verdict_and_orders_change_nothing() -> None:
    a, b = shifted(9, -0.03)
    first = compare(arms({"8": a}), arms({"8": b}), Rules(0.02, 0.05, CHANCE)).verdicts[0]
    order = np.random.default_rng(1).permutation(400)
    again = compare(arms({"8": a[::-1][:, order], "9": b}), arms({"8": b[:, order]}), Rules(0.02, 0.05, CHANCE))
    (v,) = again.verdicts
    assert (v.p, v.verdict, v.decidable) == (pytest.approx(first.p), first.verdict, pytest.approx(first.decidable))


@pytest.fixture(scope="module")
def examples():
    """Worked examples that lie beside the clone, where its owner has them."""
    path = os.environ.get("FLEXIVIT_STATISTICS")
    if not path:
        pytest.skip("FLEXIVIT_STATISTICS is not set: the worked examples are not at hand")
    return json.loads(Path(path).read_text())


def bits(nested: list) -> np.ndarray:
    return np.array([[[int(c) for c in sample] for sample in seed] for seed in nested], float)


def test_the_worked_examples(examples) -> None:
    for example in examples["examples"]:
        own = example["settings"]
        rules = Rules(own["margin"], own["share"], own["chance"], own["higher"], alpha=own["alpha"])
        a, b = ({str(g): bits(example[k])[:, i] for i, g in enumerate(example["grids"])} for k in "ab")
        found = compare(arms(a), arms(b), rules)
        assert found.everywhere == example["everywhere"]
        for v, expected in zip(found.verdicts, example["expected"], strict=True):
            d = v.difference
            got = {
                "grid": int(v.grid), "a": v.a, "b": v.b, "difference": d.value, "low": v.interval[0],
                "high": v.interval[1], "se": d.se, "df": d.df, "margin": v.margin, "t": v.t, "p": v.p,
                "signal": v.signal, "scope": d.scope, "uncorrected": v.uncorrected, "verdict": v.verdict,
                "p_holm": v.p_holm, "level": v.level, "yes_from": v.yes_from, "no_below": v.no_below,
                "decidable": v.decidable, "seed_share": d.seed_share, "needs_seeds": v.needs_seeds,
                "needs_samples": v.needs_samples, "tips_at_sd": v.falls_at,
            }  # fmt: skip
            for name, value in expected.items():
                assert got[name] == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value), name


def test_the_worked_retention(examples) -> None:
    told, example = examples["retention"], examples["examples"][0]
    a, b, grids = bits(example["a"]), bits(example["b"]), example["grids"]
    places = [grids.index(g) for g in told["specialists"]]
    single = [[arm(x[s : s + 1, i]) for i in places] for x in (a,) for s in range(3)]
    flexible = Arm(
        np.concatenate([np.concatenate([m.values for m in seed], 1) for seed in single]),
        np.concatenate([np.concatenate([m.without for m in seed], 1) for seed in single]), a.shape[2],
    )  # fmt: skip
    costs = [told["cost"][i] for i in places]
    found = retain(flexible, {str(grids[i]): arm(b[:, i]) for i in places}, costs, example["settings"]["chance"])
    expected, (low, high) = told["expected"], found.estimate.interval()
    got = [found.estimate.value, low, high, found.estimate.se, found.estimate.df]
    assert got == pytest.approx([expected[k] for k in ("retention", "low", "high", "se", "df")], rel=1e-6)
    assert found.estimate.scope == expected["scope"] and list(found.weights) == expected["weights"]
    across = retain_across(examples["across"]["tasks"])
    for name, value in examples["across"]["expected"].items():
        assert getattr(across, name) == pytest.approx(value, rel=1e-6)
    adjusted, level = holm(examples["holm"]["p"])
    np.testing.assert_allclose([adjusted, level], [examples["holm"]["adjusted"], examples["holm"]["level"]])
