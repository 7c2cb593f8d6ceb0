"""Cells of tables: how many decimals, and what stands where nothing was found."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_report import row

from benchmarks.report.answers.answer import answers
from benchmarks.report.answers.questions import entries
from benchmarks.report.answers.rules import digits_of
from benchmarks.report.page import build_page
from benchmarks.report.plots import plot
from benchmarks.report.tables import CAPTION, NOTHING, caption, markdown, table_of
from benchmarks.store import Store


@given(st.lists(st.floats(0, 1e6), max_size=5), st.integers(0, 3))
def test_decimals_show_two_digits_of_the_largest_value(values, usual) -> None:
    digits, largest = digits_of(values, usual), max(values, default=0.0)
    assert usual <= digits <= usual + 2
    if largest >= 1 or not largest:
        assert digits == usual
    elif digits < usual + 2:
        assert float(f"{largest:.{digits}f}") == pytest.approx(largest, rel=0.06)


def test_small_values_are_not_all_nought(tmp_path) -> None:
    store, n = Store(tmp_path / "run"), np.arange(2000)
    store.append([row(store, "flexivit_nano", 8, 8, n < 1), row(store, "flexivit_nano", 8, 4, n < 0)])
    (answer,) = answers(entries([store]))
    (line,) = table_of(answer).lines
    found, nothing = dict(zip(table_of(answer).columns, line[2:], strict=True)).values(), line[2]
    assert list(found)[1].startswith("0.05") and " ± " in list(found)[1]
    assert nothing.startswith("0.000 (≤ 0.") and nothing.endswith(")") and "0.000)" not in nothing
    text = markdown([answer])
    assert f"{CAPTION}; {NOTHING}." in text and f"{CAPTION}; {NOTHING}." in build_page([store], [answer])


def test_a_caption_explains_the_signs_that_are_there() -> None:
    assert caption("55.0") == "" and caption("55.0 ± 1.2") == CAPTION and caption("0.0 (≤ 1.2)").endswith(NOTHING)


@pytest.mark.parametrize("kind", ["flexivit_nano", "vit_nano_g8"])
def test_no_two_backbones_of_a_plot_have_one_colour(tmp_path, kind) -> None:
    store, n = Store(tmp_path / "run"), np.arange(50)
    names = [f"{kind}{'_' * i}" for i in range(6)]
    flexible = kind.startswith("flexi")
    store.append([row(store, name, 8, g, n < 20, flexible=flexible) for name in names for g in (4, 8)])
    (answer,) = answers(entries([store]))
    axes = plot(answer, "grid").axes[0]
    assert len({container[0].get_color() for container in axes.containers}) == len(names)


@pytest.mark.parametrize(
    ("task", "named", "tables"),
    [
        ("classification", {"squeeze": False}, {"scenes"}),  # the default
        ("classification", {"squeeze": True}, {"scenes", "scenes squeeze=True"}),
        ("absent", {"squeeze": False}, {"scenes", "scenes squeeze=False"}),  # a plug-in that is not here
    ],
)
def test_a_row_that_names_a_default_stands_with_those_that_do_not(tmp_path, task, named, tables) -> None:
    store, n = Store(tmp_path / "run"), np.arange(50)
    plain = [row(store, "flexivit_nano", 8, 8, n < 20, seed=s, task=task) for s in (0, 1)]
    told = row(store, "flexivit_nano", 8, 8, n < 25, seed=2, task=task, options={"data": "scenes", **named})
    store.append([*plain, told])
    assert {entry.group[1] for entry in entries([store])} == tables
    again = Store(tmp_path / "all")  # where all name it, the title has no use for it
    again.append([{**r, "options": told["options"], "samples": None} for r in (*plain, told)])
    assert {entry.group[1] for entry in entries([again])} == {"scenes"}
