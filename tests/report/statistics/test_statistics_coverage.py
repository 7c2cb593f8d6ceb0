"""Coverage and false verdicts in worlds whose truth is known."""

import functools

import numpy as np
import pytest
from scipy.stats import norm
from worlds import arm

from benchmarks.experiments.coverage import made, numbers
from benchmarks.experiments.made_worlds import average_precision, miou, top1
from benchmarks.report.statistics.noninferiority import Rules, compare

SAMPLES, SEEDS, WORLDS = 1000, 3, 400


def world(rng: np.random.Generator, truths: tuple[float, float], sd: float) -> list[np.ndarray]:
    """Two models [S, N]: pictures hard for all, hard for one model, hard for one run, and the luck of a whole run.

    `sd` is that of accuracy between runs; `truths` are the accuracies over all pictures and runs.
    """
    hard = rng.normal(0, 0.5**0.5, SAMPLES)
    models = []
    for truth in truths:
        luck = sd / norm.pdf(norm.ppf(truth))
        limit = norm.ppf(truth) * (1 + luck**2) ** 0.5
        own = rng.normal(0, 0.25**0.5, SAMPLES) + rng.normal(0, 0.25**0.5, (SEEDS, SAMPLES))
        models.append((hard + own + rng.normal(0, luck, (SEEDS, 1)) < limit).astype(float))
    return models


@pytest.mark.slow
@pytest.mark.parametrize("sd", [0.01, 0.03])
def test_intervals_hold_the_truth_and_models_at_the_margin_are_seldom_let_through(sd) -> None:
    rng = np.random.default_rng(0)
    held, passed = 0, 0
    for _ in range(WORLDS):
        a, b = world(rng, (0.60, 0.61), sd)
        (found,) = compare({"8": arm(a)}, {"8": arm(b)}, Rules(0.01, 1.0, 0.0)).verdicts
        held += found.interval[0] <= -0.01 <= found.interval[1]
        passed += found.verdict == "yes"
    assert held / WORLDS >= 0.93 and passed / WORLDS <= 0.04


@pytest.mark.slow
def test_a_false_verdict_in_any_of_seven_grids_is_rare() -> None:
    rng, wrong = np.random.default_rng(1), 0
    for _ in range(WORLDS):
        pairs = [world(rng, (0.60, 0.61), 0.01) for _ in range(7)]
        arms = [{str(i): arm(pair[k]) for i, pair in enumerate(pairs)} for k in (0, 1)]
        wrong += any(v.verdict != "undecided" for v in compare(*arms, Rules(0.01, 1.0, 0.0)).verdicts)
    assert wrong / WORLDS <= 0.08


@pytest.mark.slow
def test_a_few_blocks_of_frames_hold_the_truth_and_need_no_floor_of_right_and_wrong() -> None:
    worlds = made(functools.partial(miou, frames=10), 25, 3, 0.01, WORLDS)
    for single in (True, False):
        held, _, half = numbers(worlds, single, "of the report")
        assert 0.93 <= held <= 0.985 and half < 0.08
        assert numbers(worlds, single, "by units")[0] > 0.99


@pytest.mark.slow
def test_right_and_wrong_near_the_ceiling_need_a_floor() -> None:
    worlds = made(functools.partial(top1, truths=(0.99, 0.985)), 60, 3, 0.01, WORLDS)
    assert numbers(worlds, True, "none")[0] < 0.85 and numbers(worlds, True, "of the report")[0] > 0.95


@pytest.mark.slow
def test_differences_of_ap_hold_the_truth() -> None:
    held, _, _ = numbers(made(average_precision, 200, 3, 0.01, 200), False, "of the report")
    assert held >= 0.92
