"""Trainings of one backbone that cost the same: which are compared, what is said, and that rows tell the cost."""

import json
import re

import numpy as np
import pytest
import runner_tools
from flexivit_toy import Toy
from test_report import row

from backbones import build_backbone
from backbones.grids import parse_schedule
from benchmarks.cost.budget import cumulative_macs
from benchmarks.engine.running.rows import macs_of_training
from benchmarks.report.build import read_report, write_measured, write_report
from benchmarks.report.training.equal_cost import budgets_of, in_short, macs_text
from benchmarks.report.training.plot import plot_of_training
from benchmarks.store import Store
from tasks.contract import Recipe

N = 200
SEEDS = (0, 1, 2)


def trained(train, steps, macs, share, grid=8, seeds=SEEDS, **more):
    """Rows of one schedule: `share` of the pictures are right, others with each seed."""
    recipe = {"steps": steps, "warmup": steps // 10, "batch": 64}
    return [
        {
            "train": train, "grid": grid, "right": np.roll(np.arange(N) % 100 < 100 * share, 3 * seed), "seed": seed,
            "steps": steps, "recipe": recipe | more.get("recipe", {}),
            "training": {"steps": steps, "macs": macs, "seconds": 60.0 * (2 if train == 15 else 1)},
            "env": {"device_name": "a processor"},
        }
        for seed in seeds
    ]  # fmt: skip


def folder(path, *groups, backbone="flexivit_nano"):
    store = Store(path)
    for own in (o for group in groups for o in group):
        own = dict(own)
        train, grid, right = own.pop("train"), own.pop("grid"), own.pop("right")
        key = f"{backbone}-{train}-{own['steps']}-{grid}-{own['seed']}".replace(":", "_")
        made = row(store, backbone, train, grid, right, **own)
        kept = np.load(store.folder / made["samples"])
        store.append([made | {"row_key": key, "samples": store.save_samples(key, dict(kept))}])
    return store


@pytest.fixture
def store(tmp_path):
    """Two budgets: at the small one the curriculum is far better, at the large one both are alike."""
    return folder(
        tmp_path / "run",
        trained(15, 100, 1e12, 0.3), trained("curriculum:4,8,15", 250, 1.004e12, 0.6),
        trained(15, 400, 4e12, 0.7), trained("curriculum:4,8,15", 1000, 4e12, 0.7),
    )  # fmt: skip


def test_equal_costs_meet_over_the_tables_and_unequal_ones_do_not(store) -> None:
    report = read_report([store])
    assert len(report.answers) == 4  # four lengths are four tables
    (found,) = report.budgets
    assert [(p.one.train, p.one.steps, p.other.train, p.other.steps) for p in found.pairs] == [
        ("curriculum:4,8,15", 250, "15", 100), ("curriculum:4,8,15", 1000, "15", 400),
    ]  # fmt: skip
    assert found.title == "classification scenes finetune-v1, test, top1: flexivit_nano"
    small, large = found.pairs
    (verdict,) = small.comparison.verdicts
    assert verdict.verdict == "yes" and verdict.ahead and verdict.margin == 0
    assert verdict.difference.value == pytest.approx(0.3)
    assert [v.verdict for v in large.comparison.verdicts] == ["undecided"]


def test_the_sentence_names_cost_both_trainings_and_difference(store) -> None:
    (found,) = read_report([store]).budgets
    first = found.lines()[0]
    assert re.fullmatch(
        r"For about the same 1 TMACs of training, curriculum:4,8,15 \(250 steps\) instead of 15 \(100 steps\): better "
        r"at grid 8, \+30\.0 points \[\+[\d.]+, \+[\d.]+\] \(3 seeds each, 200 pictures; one grid\)\.",
        first,
    ), first
    assert in_short([found]) == (
        "At equal cost of training, curriculum:4,8,15 instead of 15, of 2 comparisons, grid by grid: better in 1 and "
        "undecided in 1."
    )


def test_worse_is_said_and_one_seed_judges_files(tmp_path) -> None:
    store = folder(
        tmp_path / "run", trained("random:4,8", 200, 1e12, 0.2, seeds=(0,)), trained(15, 100, 1e12, 0.9, seeds=(0,))
    )
    (found,) = read_report([store]).budgets
    line = found.lines()[0]
    assert "random:4,8 (200 steps) instead of 15 (100 steps): worse at grid 8, -70.0 points" in line
    assert line.endswith("One training run each: this judges these files, not the schedules.")
    assert in_short([found]).endswith("One training run each.")


@pytest.mark.parametrize(
    "other",
    [
        trained("curriculum:4,8,15", 250, 1.02e12, 0.6),  # two per cent dearer
        trained("curriculum:4,8,15", 250, None, 0.6),  # rows of a time that did not tell
        trained("curriculum:4,8,15", 250, 1e12, 0.6, recipe={"lr": 0.1}),  # another recipe
        trained("15", 250, 1e12, 0.6),  # the same schedule
        trained("", 250, 1e12, 0.6),  # none that is known
    ],
)
def test_what_is_not_compared(tmp_path, other) -> None:
    store = folder(tmp_path / "run", trained(15, 100, 1e12, 0.3), other)
    assert read_report([store]).budgets == ()


def test_other_backbones_are_no_pair(tmp_path) -> None:
    one = folder(tmp_path / "run", trained(15, 100, 1e12, 0.3))
    folder(tmp_path / "run", trained("curriculum:4,8,15", 250, 1e12, 0.6), backbone="flexivit_s")
    assert budgets_of(read_report([one]).answers) == []


def test_page_readme_and_verdicts_hold_it(store, tmp_path) -> None:
    report = read_report([store])
    folder = write_report(report, tmp_path / "report")
    page = (folder / "page.html").read_text(encoding="utf-8")
    assert '<p class="headline">At equal cost of training, curriculum:4,8,15 instead of 15, of 2' in page
    assert '<h2 id="h-training">' in page and "data:image/png;base64," in page
    assert len(list(folder.glob("*_training.png"))) == len(list(folder.glob("*_training.pdf"))) == 1
    tables = json.loads((folder / "verdicts.json").read_text(encoding="utf-8"))
    own = [pair for table in tables for pair in table["equal_cost"]]
    assert [(p["backbone"], p["first"]["steps"], p["grids"][0]["verdict"]) for p in own] == [
        ("flexivit_nano", 250, "better"), ("flexivit_nano", 1000, "undecided"),
    ]  # fmt: skip
    kept = write_measured(report, tmp_path / "kept")
    text = (kept / "README.md").read_text(encoding="utf-8")
    (name,) = (p.name for p in kept.glob("*_training.png"))
    assert text.index("## At equal cost of training: ") < text.index(f"({name})") < text.index("| backbone |")


def test_a_plot_has_a_panel_for_each_grid_and_a_line_for_each_schedule(tmp_path) -> None:
    groups = [
        trained(t, steps, cost, 0.5, grid=grid)
        for t, steps, cost in ((15, 100, 1e12), ("curriculum:4,8,15", 250, 1e12), (15, 400, 4e12))
        for grid in (4, 8, 15)
    ]
    (found,) = read_report([folder(tmp_path / "run", *groups)]).budgets
    figure = plot_of_training(found)
    panels = [a for a in figure.axes if a.get_title()]
    assert [a.get_title() for a in panels] == ["grid 4", "grid 8", "grid 15"]
    (drawn, short) = (c.lines[0].get_xdata() for c in panels[0].containers)
    assert sorted(map(len, (drawn, short))) == [1, 2]


def test_without_samples_the_plot_stands_and_the_sentence_says_why(tmp_path) -> None:
    store = folder(tmp_path / "run", trained(15, 100, 1e12, 0.3), trained("curriculum:4,8,15", 250, 1e12, 0.6))
    store.append([r.changed(samples=None) for r in store.rows()])
    report = read_report([store])
    (found,) = report.budgets
    assert "no verdict at grid 8 (flexivit_nano has no interval: nothing is kept of its samples)" in found.lines()[0]
    assert in_short([found]) == "" and len(list(write_report(report, tmp_path / "out").glob("*_training.png"))) == 1


def test_odd_names_options_and_rows(tmp_path) -> None:
    """Names that differ in a sign alone have plots of their own; dollars are no mathematics; no data is named."""
    run = tmp_path / "run"
    for name in ("a.b", "a-b", "$x$"):
        folder(run, trained(15, 100, 1e12, 0.3), trained("curriculum:4,8,15", 250, 1e12, 0.6), backbone=name)
    store = Store(run)
    store.append([r.changed(options={"data": ""}) for r in store.rows()])
    report = read_report([store])
    assert len(report.budgets) == 3
    assert len(list(write_report(report, tmp_path / "out").glob("*_training.png"))) == 3


def test_one_seed_against_several_borrows_its_noise_and_seeds_that_do_not_tell_their_cost_count(tmp_path) -> None:
    store = folder(
        tmp_path / "run", trained(15, 100, 1e12, 0.3, seeds=(0,)), trained("curriculum:4,8,15", 250, 1e12, 0.6)
    )
    last = store.rows()[-1]
    store.append([last.changed(training={k: v for k, v in last.training.items() if k != "macs"})])
    (found,) = read_report([store]).budgets
    assert found.lines()[0].endswith("its training noise is taken to be that of the other.")
    assert found.lines()[-1] == "95 % intervals per grid; verdicts corrected within a comparison."


@pytest.mark.parametrize(("macs", "text"), [(4.4711e13, "44.7 TMACs"), (9.99e8, "999 MMACs"), (6.71e20, "671 EMACs")])
def test_costs_are_told_with_three_digits(macs, text) -> None:
    assert macs_text(macs) == text


def test_rows_tell_the_cost_of_their_training(tmp_path) -> None:
    _, rows = runner_tools.run_toy(tmp_path)
    trainings = {(r.train_grid, r.training["steps"], r.recipe["batch"], r.training["macs"]) for r in rows}
    encoder = build_backbone(rows[0].backbone, **rows[0].backbone_options)
    for train, steps, batch, macs in trainings:
        assert macs == cumulative_macs(parse_schedule(str(train)), steps, batch, encoder)[-1]
    assert trainings
    task = Toy()
    task.recipe = Recipe(steps=3, batch=8, candidates=({"batch": 4},))  # a single one competes with nobody
    half = macs_of_training(encoder, task, "4", {"steps": 3})
    assert half == cumulative_macs(parse_schedule("4"), 3, 4, encoder)[-1]
