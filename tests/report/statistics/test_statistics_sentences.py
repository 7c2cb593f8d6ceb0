"""What is said: every form of a verdict word by word, numbers rounded to the side that stays true."""

import dataclasses

import numpy as np
import pytest
from test_statistics_choices import parts_of
from worlds import arm, choice, runs

from benchmarks.report.statistics.best import find_best
from benchmarks.report.statistics.noninferiority import GridVerdict, Rules, compare
from benchmarks.report.statistics.retention import retain, retain_across
from benchmarks.report.statistics.sentences import (
    Wording,
    across_sentence,
    best_sentence,
    footer,
    grids_text,
    retention_sentence,
    sentence,
)
from benchmarks.report.statistics.variance import Estimate

WORDS = Wording(samples=5000)


def verdict(answer: str, difference: float, se: float, seeds: int = 3, **more) -> GridVerdict:
    """At grid 8 with margin 1 point, seven grids; the noise of training has a part of the variance where seeds > 1."""
    share = 0.7 if seeds > 1 else 0.0
    parts = parts_of((1 - share) * se**2, (share * se**2 * seeds / 2) ** 0.5, seeds, 5000)
    found = Estimate(difference, parts, "recipes" if seeds > 1 else "weights", True)
    told = {"p": 0.01, "p_holm": 0.01, "level": 0.05, "uncorrected": answer, "verdict": answer, "grids": 7}
    return GridVerdict("8", 0.553, 0.55, found, 0.01, False, True, 0.05, **told, **more)


def said(found: GridVerdict, named: bool = True, words: Wording = WORDS) -> str:
    return sentence(found, "A", "B", words, named)


def test_yes_and_no() -> None:
    low, high = verdict("yes", 0.003, 0.004).interval
    numbers = f"[{100 * low:+.1f}, {100 * high:+.1f}]"
    basis = "(3 seeds each, 5,000 pictures; Holm over 7 grids)"
    assert said(verdict("yes", 0.003, 0.004)) == (
        f"At grid 8 A may replace B: +0.3 points {numbers}, margin 1 {basis}."
    )
    better = said(verdict("yes", 0.003, 0.004, ahead=True), named=False)
    assert better == f"At grid 8 it may, and is better: +0.3 points {numbers}, margin 1 {basis}."
    no = verdict("no", -0.042, 0.005)
    assert said(no, named=False).startswith("At grid 8 it may not: -4.2 [")
    below = float(said(no).split("below ")[1].rstrip("."))
    assert 0 <= 100 * no.no_below - below < 0.1  # rounded down: it fails every margin that is named
    assert "A may not replace B" in said(no) and "points" in said(no)


def test_undecided_tells_what_would_decide() -> None:
    def told(**more) -> str:
        return said(verdict("undecided", -0.009, 0.0081, **more), named=False)

    plain = verdict("undecided", -0.009, 0.0081)
    could, found = (float(told().split(after)[1].split(";")[0].split(".  ")[0].split(" 7")[0].rstrip("."))
                    for after in ("margin of ", "yes from "))  # fmt: skip
    assert 0 <= could - 100 * plain.decidable < 0.1 and 0 <= found - 100 * plain.yes_from < 0.1  # rounded up
    assert told().startswith("Undecided at grid 8: -0.9 [")
    share = "70 % of the uncertainty is training noise: for a margin of 1"
    assert f"{share} neither more seeds nor more pictures alone would do." in told()
    assert f"{share} 9 seeds would do." in told(needs_seeds=9)
    assert f"{share} 12,000 pictures would do." in told(needs_samples=11_234)
    assert f"{share} 9 seeds or 12,000 pictures would do." in told(needs_seeds=9, needs_samples=12_000)
    assert "Undecided at grid 8 whether A may replace B: " in said(plain)
    near = verdict("undecided", -0.009, 0.0008)
    assert "lies about at the margin of 1." in said(near) and "would do" not in said(near)


def test_one_run_each_judges_files() -> None:
    text = said(verdict("yes", 0.003, 0.004, seeds=1, falls_at=0.0089))
    assert "(one training run each, 5,000 pictures; Holm over 7 grids)" in text
    assert text.endswith(
        "One training run each: this judges these two files, not the backbones. "
        "It falls if seeds differ by more than 0.8 points (sd)."
    )
    lone = said(verdict("undecided", 0.003, 0.004, seeds=1, falls_at=0.0))
    assert lone.endswith("not the backbones.") and "training noise" not in lone
    frozen = verdict("yes", 0.003, 0.004, seeds=1)
    frozen = dataclasses.replace(frozen, difference=dataclasses.replace(frozen.difference, retrainable=False))
    assert "(nothing is trained, 5,000 pictures" in said(frozen) and "files" not in said(frozen)


def test_a_lent_noise_and_unequal_seeds_are_told() -> None:
    found = compare({"8": arm(runs(1, 0.9))}, {"8": arm(runs(2, 0.5, 1))}, Rules(0.01, 0.05, 0.1)).verdicts[0]
    text = sentence(found, "A", "B", Wording(samples=300))
    assert "(3 and 1 seeds, 300 pictures; one grid)" in text
    assert text.endswith("One of them was trained once: its training noise is taken to be that of the other.")


def test_neither_above_chance() -> None:
    empty = verdict("empty", 0.0, 0.01)
    words = dataclasses.replace(WORDS, chance=0.032)
    assert said(empty, True, words) == "At grid 8 neither A nor B is above chance (3.2 %): nothing is compared."
    assert said(empty, False, WORDS) == "At grid 8 neither is above chance: nothing is compared."


def test_other_units_clusters_and_small_margins() -> None:
    metres = Wording("m", 1.0, 701, "frames", 23, "blocks")
    found = dataclasses.replace(verdict("yes", 0.0, 0.02), margin=0.2285)
    text = said(found, True, metres)
    assert "+0.00 m [-0.0" in text and "margin 0.23" in text and "701 frames in 23 blocks" in text
    assert metres.unit_line() == "The unit of the intervals: one of 23 blocks (701 frames), left out as a whole."
    captions = Wording(samples=1000, units=1000, drawn="pictures with all their captions")
    assert captions.unit_line() == (
        "The unit of the intervals: one of 1,000 pictures with all their captions; they are left out in 400 groups, "
        "dealt at random."
    )
    small = dataclasses.replace(verdict("yes", 0.0001, 0.0001), margin=0.0005)
    assert "+0.01 points [" in said(small) and "margin 0.05" in said(small)
    assert "-0.0 " not in said(verdict("yes", -0.0001, 0.004))  # no negative zero


def test_retention_best_and_footer() -> None:
    groups = {g: arm(runs(i, 0.6, 3, 300)) for i, g in enumerate(("8", "15"))}
    both = dataclasses.replace(
        groups["8"], values=np.concatenate([a.values for a in groups.values()], 1),
        without=np.concatenate([a.without for a in groups.values()], 1),
    )  # fmt: skip
    kept = retain(both, groups, [1.0, 2.0], 0.1)
    low, high = kept.estimate.interval()
    assert retention_sentence(kept, "A") == (
        f"One set of weights (A) keeps 100 % [{100 * low:.0f}, {100 * high:.0f}] of what the specialists reach above "
        "chance, at grids 8 and 15."
    )
    assert retention_sentence(kept, "A", "8").startswith("One set of weights (A, trained at 8) keeps 100 % [")
    across = across_sentence(retain_across([(0.9, 0.01, 9.0), (1.0, 0.01, 9.0)]), "A", ["8", "random:4,8"], 2, "cars98")
    assert across.startswith("Over 2 tasks A, trained at 8 and random:4,8, keeps 95 % [") and across.endswith(
        "least on cars98: 90 %."
    )
    choices = [choice("X", runs(1, 0.9, 1), 2.0), choice("Y", runs(2, 0.1, 1), 1.0)]
    best = find_best(choices, 0.01)
    assert best_sentence(best, choices, 0.01, WORDS) == (
        f"Measured best: X, {100 * choices[0].value:.1f} % (chosen and measured on different halves: "
        f"{100 * best.halved:.1f} %); no other could be best. Surely within 1 point and cheapest: X."
    )
    none = best_sentence(dataclasses.replace(best, could_be=(0, 1), cheapest=None), choices, 0.005, WORDS)
    assert none.endswith("1 other could be best. Surely within 0.5 points and cheapest: none can be shown.")
    assert footer(12) == (
        "95 % intervals per grid; verdicts corrected within a comparison, not over the 12 comparisons of this table."
    )
    assert footer(1) == "95 % intervals per grid; verdicts corrected within a comparison."
    assert [grids_text(g) for g in (["8"], ["8", "15"], ["4", "8", "15"])] == [
        "grid 8", "grids 8 and 15", "grids 4, 8 and 15",
    ]  # fmt: skip
    assert said(verdict("yes", 0.003, 0.004)) == pytest.approx(said(verdict("yes", 0.003, 0.004)))
