"""A model in another view against its usual one: paired over pictures and training runs, corrected over grids."""

import json

import numpy as np
import pytest
from report.test_report import only_answer, row
from scipy.stats import t as student
from scipy.stats import ttest_rel

from benchmarks.report.answers.answer import answers
from benchmarks.report.answers.questions import entries
from benchmarks.report.answers.verdicts import as_json
from benchmarks.report.build import read_report, write_measured
from benchmarks.report.statistics.sentences import Wording
from benchmarks.report.statistics.variance import Estimate, Parts
from benchmarks.report.views import FOOTER, Effect, ViewEffect
from benchmarks.store import Store

N = 400
PLACES = np.arange(N)


def add(store, grid, right, seed=None, more=0.0, **view):
    """A row whose pictures are right as told; `view`: what differs from the usual evaluation."""
    key = f"{grid}-{seed}-{'-'.join(map(str, view.values()))}"
    made = row(store, "flexivit_nano", None if seed is None else 8, grid, right) | {"row_key": key, "seed": seed or 0}
    label, ranked = np.zeros(N, np.int64), np.where(right, 0, 1)[:, None].astype(np.int32)
    samples = store.save_samples(key, {"ids": PLACES, "label": label, "ranked": ranked})
    hashed = {"samples_hash": f"{hash(right.tobytes()):x}"}
    options = {"view_options": {k: v for k, v in view.items() if k != "resize"}}
    store.append([made | {"samples": samples} | hashed | options | {k: v for k, v in view.items() if k == "resize"}])


def verdicts(found):
    return {grid: own.verdict for grid, own in found.grids.items()}


def test_a_difference_is_paired_over_pictures_and_told(tmp_path) -> None:
    """The average is right in every tenth picture more, and wrong nowhere else."""
    store = Store(tmp_path / "run")
    right, gained = PLACES % 10 < 5, PLACES % 10 < 6
    add(store, 8, right)
    add(store, 8, gained, ensemble=[4])
    answer = only_answer(store)
    (found,) = answer.views
    test = ttest_rel(gained.astype(float), right.astype(float))
    half = student.ppf(0.975, N - 1) * np.sqrt(0.1 * 0.9 / (N - 1))
    assert test.pvalue < 0.05 and verdicts(found) == {"8": "better"}
    assert found.grids["8"].difference.value == pytest.approx(0.1)
    assert found.grids["8"].difference.interval() == pytest.approx((0.1 - half, 0.1 + half))
    line = f"better at grid 8, +10.0 points [+{10 - 100 * half:.1f}, +{10 + 100 * half:.1f}]."
    assert found.line(answer.words) == f"flexivit_nano, ensemble=[4] instead of the usual evaluation: {line}"
    assert found.line(answer.words) in answer.lines()
    (told,) = as_json(answer)["views"]
    assert told["view"] == "ensemble=[4]" and told["grids"][0]["verdict"] == "better"
    folder = write_measured(read_report([store]), tmp_path / "kept")
    assert "instead of the usual evaluation: better at grid 8" in (folder / "README.md").read_text()
    assert json.loads((folder / "verdicts.json").read_text())[0]["views"] == [told]


def test_verdicts_are_corrected_over_grids_and_told_together(tmp_path) -> None:
    """At 8 and 15 the other resize loses ten and twenty pictures of a hundred, at 4 it changes nothing at all."""
    store, right = Store(tmp_path / "run"), PLACES % 10 < 5
    lost = {4: right, 8: PLACES % 10 < 4, 15: PLACES % 10 < 3}
    for grid, other in lost.items():
        add(store, grid, right)
        add(store, grid, other, resize="bilinear")
    (found,) = only_answer(store).views
    assert verdicts(found) == {"4": "the same", "8": "worse", "15": "worse"}
    told = found.line(only_answer(store).words)
    assert told.endswith("worse at grids 8 and 15 (-20.0 to -10.0 points); the same at grid 4.")


def test_one_difference_of_many_that_chance_would_give_is_undecided(tmp_path) -> None:
    """p = 0.025 at one grid of three, which Holm's correction takes back; alone it is a difference."""
    right, better = PLACES < 200, PLACES < 205
    alone, three = Store(tmp_path / "alone"), Store(tmp_path / "three")
    for grid in (4, 8, 15):
        for store in (alone, three) if grid == 8 else (three,):
            add(store, grid, right)
            add(store, grid, better if grid == 8 else np.roll(right, 1), ensemble=[4])
    assert verdicts(only_answer(alone).views[0]) == {"8": "better"}
    assert verdicts(only_answer(three).views[0]) == dict.fromkeys(("4", "8", "15"), "undecided")


def test_training_runs_are_paired(tmp_path) -> None:
    """Runs of 40, 50 and 60 %, each with the same gain: what they have in common says nothing of the view."""
    store = Store(tmp_path / "run")
    for seed, tenths in enumerate((4, 5, 6)):
        add(store, 8, tenths > PLACES % 10, seed)
        add(store, 8, tenths + 1 > PLACES % 10, seed, ensemble=[4])
    (found,) = only_answer(store).views
    low, high = found.grids["8"].difference.interval()
    assert verdicts(found) == {"8": "better"} and 0.05 < low < high < 0.15
    assert "trained at 8" in found.line(only_answer(store).words)


def test_less_is_better_turns_the_sign_and_chance_is_no_difference(tmp_path) -> None:
    right, gained = PLACES % 10 < 5, PLACES % 10 < 6
    for chance, higher, verdict in ((1.0, False, "worse"), (0.9, True, "neither above chance")):
        store = Store(tmp_path / f"{chance}")
        measure = {"name": "top1", "unit": "%", "scale": 100.0, "higher_is_better": higher, "chance": chance}
        add(store, 8, right)
        add(store, 8, gained, ensemble=[4])
        rows = [r.changed(measure=measure, higher_is_better=higher) for r in store.rows()]
        other = Store(tmp_path / f"{chance}-told")
        for one in rows:
            values = store.samples(one)
            assert values is not None
            other.append([one.changed(samples=other.save_samples(one.row_key, values))])
        assert verdicts(only_answer(other).views[0]) == {"8": verdict}, (chance, higher)


def test_a_view_whose_usual_one_was_not_measured_tells_nothing(tmp_path) -> None:
    store = Store(tmp_path / "run")
    add(store, 4, PLACES % 2 == 0)
    add(store, 8, PLACES % 2 == 0, ensemble=[4])
    assert not only_answer(store).views


def test_what_both_name_is_compared_with_the_first_of_the_suite(tmp_path) -> None:
    """And everything is named in which a view differs from it, the resize method and what is left out too."""
    store = Store(tmp_path / "run")
    add(store, 8, PLACES % 10 < 5, neighbours=10)
    add(store, 8, PLACES % 10 < 6, neighbours=20)
    add(store, 8, PLACES % 10 < 4, resize="bilinear", neighbours=20)
    words, told = only_answer(store).words, [own.line(only_answer(store).words) for own in only_answer(store).views]
    assert [line.partition(":")[0] for line in told] == [
        "flexivit_nano, neighbours=20 instead of neighbours=10",
        "flexivit_nano, bilinear neighbours=20 instead of pi neighbours=10",
    ] and words.points == "points"
    other = Store(tmp_path / "other")
    add(other, 8, PLACES % 10 < 5)
    add(other, 8, PLACES % 10 < 6, resize="bilinear", ensemble=[4])
    (found,) = only_answer(other).views
    assert (found.view, found.usual) == ("bilinear ensemble=[4]", "the usual evaluation")


@pytest.mark.parametrize("name", ["train_key", "weights_hash"])
def test_another_training_is_no_other_view(tmp_path, name) -> None:
    """Two folders, each with one way of evaluating a model of its own."""
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    add(one, 8, PLACES % 10 < 5, 0)
    add(two, 8, PLACES % 10 < 6, 0, resize="bilinear")
    stores = []
    for store in (one, two):
        (row_,) = store.rows()
        stores.append(Store(tmp_path / f"{store.folder.name}-told"))
        values = store.samples(row_)
        assert values is not None
        samples = stores[-1].save_samples(row_.row_key, values)
        stores[-1].append([row_.changed(samples=samples, **{name: store.folder.name})])
    (answer,) = answers(entries(stores))
    (found,) = answer.views
    assert not found.grids and found.unknown == {"8": "they are of other weights"}
    assert "no verdict at grid 8 (they are of other weights)" in "\n".join(answer.lines())


def test_a_seed_that_lacks_the_view_is_told(tmp_path) -> None:
    store = Store(tmp_path / "run")
    for seed in (0, 1):
        add(store, 8, PLACES % 10 < 5, seed)
    add(store, 8, PLACES % 10 < 6, 0, ensemble=[4])
    (found,) = only_answer(store).views
    assert found.unknown == {"8": "they have other seeds"}


def test_small_differences_are_shown_and_nothing_is_minus_nought(tmp_path) -> None:
    found = [
        Estimate(value, Parts(1e-9, (0.0,), (0.0,), (1,), (-1,), 400, 400), "weights", False) for value in (3e-4, -1e-9)
    ]
    grids = {"8": Effect(found[0], 0.001, "better"), "15": Effect(found[1], 0.9, "undecided")}
    told = ViewEffect("a", "-", "b", "c", grids, {}).line(Wording(unit="%", scale=100.0))
    assert told.startswith("a, b instead of c: better at grid 8, +0.0300 points [+0.0238, +0.0362]; undecided")
    assert "at grid 15, +0.0000 points [-0.0062, +0.0062]" in told


def test_views_come_after_what_the_table_answers(tmp_path) -> None:
    store = Store(tmp_path / "run")
    add(store, 8, PLACES % 10 < 5)
    add(store, 8, PLACES % 10 < 6, ensemble=[4])
    lines = only_answer(store).lines()
    place = next(i for i, line in enumerate(lines) if "instead of the usual" in line)
    assert place == len(lines) - 2 and lines[-1] == FOOTER
    assert any(line.startswith("Measured best") for line in lines[:place])
    folder = write_measured(read_report([store]), tmp_path / "kept")
    assert "non-inferiority" not in (folder / "README.md").read_text()
