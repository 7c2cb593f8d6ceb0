"""Which grid a fixed model stands for: the one it was made for, or one near it; never the only one it was tuned at."""

import numpy as np
import pytest
from test_report import only_answer, row

from benchmarks.report.answers.answer import AWAY
from benchmarks.report.answers.comparisons import NEAR
from benchmarks.report.answers.matrix import headline
from benchmarks.store import Store


def test_a_model_tuned_away_from_its_grid_alone_is_no_specialist(tmp_path) -> None:
    """In a suite that is half done one of grid 15, tuned at 8, stood for grid 8, and the flexible one kept 267 %."""
    store, n = Store(tmp_path / "run"), np.arange(400)
    for name, k in {"flexivit_nano": 240, "vit_nano_g15": 90}.items():
        store.append([row(store, name, 8, 8, n < k, label=name)])
    half = only_answer(store)
    assert not half.kept and not half.answering()
    assert half.comparisons[0].comparison.verdicts[0].verdict == "yes"  # told as context
    assert AWAY in half.lines() and headline([half]) == AWAY
    store.append([row(store, "vit_nano_g8", 8, 8, n < 260)])
    whole = only_answer(store)
    assert whole.kept[0].specialists == {"8": "vit_nano_g8"}
    assert [c.fixed for c in whole.answering()] == ["vit_nano_g8"]


@pytest.mark.parametrize(
    ("grid", "answers"), [(14, True), (15, True), (16, True), (18, True), (20, False), (10, False)]
)
def test_a_grid_near_its_own_is_its_own(tmp_path, grid, answers) -> None:
    """Pictures of another size have other grids: CamVid's 16 is as near as 15 comes to it."""
    assert (max(grid, 15) / min(grid, 15) <= NEAR) is answers
    store, n = Store(tmp_path / "run"), np.arange(400)
    costs = {"cost": {"macs": grid**2, "images_per_second": 1.0}}
    rows = [
        {**row(store, name, grid, 15, n < 200, label=name), "eval_grid": grid, **costs}
        for name in ("flexivit_nano", "vit_nano_g15")
    ]
    store.append(rows)
    assert [c.answering for c in only_answer(store).answering()] == ([str(grid)] if answers else [])
