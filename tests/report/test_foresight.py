"""What a suite could decide before it is run: against the textbook, and against rows that are there."""

import json

import numpy as np
import pytest
from front_door import call
from scipy.stats import t as student
from test_report import row

from benchmarks.engine.suite import load_suite
from benchmarks.report.foresight import Assumptions, foresee
from benchmarks.store import Store

SUITE = """\
name: told
backbones: [flexivit_nano, vit_nano_g8]
train: [8]
eval: [8]
seeds: {seeds}
tasks:
  - {{task: classification, options: {{data: scenes{more}}}}}
"""


def seen(tmp_path, margin: float, seeds: str = "[0, 1, 2]", more: str = "", assumed=None):
    path = tmp_path / "told.yaml"
    path.write_text(SUITE.format(seeds=seeds, more=more))
    (one,) = foresee(load_suite(str(path), tmp_path), Store(tmp_path / "run"), tmp_path, margin, assumed)
    return one


def test_assumptions_give_the_margins_of_the_textbook(tmp_path) -> None:
    knn = seen(tmp_path, 1.0, more=", protocol: knn")
    z = student.ppf(0.975, 239) + student.ppf(0.8, 239)
    assert (knn.samples, knn.grids, knn.basis, knn.trained) == (240, 1, "assumed", False)
    assert knn.decidable == pytest.approx(z * (0.2 / 240) ** 0.5) and round(100 * knn.decidable, 1) == 8.1
    assert knn.needs_seeds is None and 15_000 < knn.needs_samples < 16_000
    trained = seen(tmp_path, 1.0)
    assert trained.seeds == 3 and trained.decidable > knn.decidable
    assert trained.needs_seeds is None and trained.needs_samples is None and trained.together[0] > 3
    assert "seeds and" in trained.line() and "samples together" in trained.line()
    assert seen(tmp_path, 20.0).line().endswith("enough for 20")
    assert "of these files and not of the backbones" in seen(tmp_path, 1.0, seeds="[0]").line()
    quiet = seen(tmp_path, 5.0, assumed=Assumptions(0.02, 0.02))
    assert quiet.needs_seeds > 3 and f"{quiet.needs_seeds} seeds" in quiet.line()
    with pytest.raises(ValueError, match="above 0, not 0"):
        seen(tmp_path, 0.0)


def test_rows_that_are_there_replace_assumptions(tmp_path) -> None:
    store, n = Store(tmp_path / "run"), np.arange(240)
    for name, shift in (("flexivit_nano", 0), ("vit_nano_g8", 6)):
        for seed in range(3):
            store.append([row(store, name, 8, 8, (n + shift + seed) % 240 < 150, seed=seed)])
    found = seen(tmp_path, 1.0)
    assert found.basis == "rows" and found.samples == 240
    assumed = seen(tmp_path / "elsewhere", 1.0) if (tmp_path / "elsewhere").mkdir() is None else None
    assert found.decidable < 0.8 * assumed.decidable  # those models differ in 12 of 240 pictures


def test_the_verb_says_it(monkeypatch, capsys, tmp_path) -> None:
    path = tmp_path / "told.yaml"
    path.write_text(SUITE.format(seeds="[0, 1, 2]", more=""))
    plan = ("plan", str(path), "--data-root", str(tmp_path), "--out", str(tmp_path / "run"), "--margin", "1")
    code, out, _ = call(monkeypatch, capsys, *plan, "--seed-sd", "0.5")
    assert code == 0 and "3 seeds, 240 samples, 1 grid (assumed) could decide a margin of" in out
    assert "assumed: models differ in 20 % of the samples, runs by 0.5 points (sd)" in out
    code, out, _ = call(monkeypatch, capsys, *plan, "--json")
    assert json.loads(out)["margins"][0]["samples"] == 240
