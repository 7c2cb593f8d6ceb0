"""The report: intervals against known ones, the answer's words, tables, and a page without holes for strangers."""

import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

import run_all
from benchmarks.report.compare import cheapest, fastest, front, points, verdicts
from benchmarks.report.confidence import Confidence, multinomial
from benchmarks.report.page import build_page
from benchmarks.report.published import Published, beside, published
from benchmarks.report.tables import latex, markdown
from benchmarks.store import Store

GRIDS = {4: 0.02e9, 8: 0.09e9, 15: 0.35e9}


def row(store, backbone, train, grid, right, **more):
    """A row of classification whose pictures are right or wrong as told."""
    label = np.zeros(len(right), np.int64)
    ranked = np.where(np.asarray(right, bool), 0, 1)[:, None].astype(np.int32)
    key = f"{backbone}-{train}-{grid}".replace("/", "_").replace("<", "_")[:60]
    samples = store.save_samples(key, {"ids": np.arange(len(right)), "label": label, "ranked": ranked})
    return {
        "row_key": key, "status": "ok", "suite": "told", "task": "classification", "protocol": "finetune-v1",
        "options": {"data": "scenes"}, "backbone": backbone, "train_grid": train, "eval_grid": grid, "seed": 0,
        "split": "test", "metric": "top1", "higher_is_better": True, "metrics": {"top1": float(np.mean(right))},
        "cost": {"macs": int(GRIDS[grid]), "images_per_second": 4e10 / GRIDS[grid]}, "samples": samples,
        "finished": "2026-01-01T00:00:00+00:00", "label": f"{backbone} at {grid}", "image_size": 120,
        "env": {"command": "run_all.py run told --data-root /somewhere/data", "revision": "abc", "versions": {}},
        **more,
    }  # fmt: skip


@pytest.fixture
def store(tmp_path):
    """The flexible model is right in 70 % everywhere; the fixed one in 100, 70 (of other pictures) and 20 %."""
    store, n = Store(tmp_path / "run"), 200
    seven, two = np.arange(n) % 10 < 7, np.arange(n) % 10 < 2
    rows = [row(store, "flexivit_nano", 8, g, seven) for g in GRIDS]
    rows += [row(store, "vit_nano_g8", 8, g, {4: seven | True, 8: seven[::-1], 15: two}[g]) for g in GRIDS]
    store.append(rows)
    return store


def test_intervals_are_those_of_a_binomial_and_pairs_share_their_draws(store) -> None:
    rows, confidence = store.rows(), Confidence(store)
    low, high = confidence.interval(rows[0])
    error = 1.96 * np.sqrt(0.7 * 0.3 / 200)
    assert low == pytest.approx(0.7 - error, abs=0.012) and high == pytest.approx(0.7 + error, abs=0.012)
    same = confidence.difference(rows[0], rows[1])
    assert (same.mean, same.low, same.high) == (0, 0, 0) and same.equal
    worse = confidence.difference(rows[0], rows[5])
    assert worse.mean == pytest.approx(0.5) and worse.low > 0.4 and not worse.equal
    weights = multinomial(50, 200)
    assert weights.shape == (200, 50) and (weights.sum(1) == 50).all()
    with pytest.raises(ValueError, match="different split"):
        confidence.difference(rows[0], {**rows[1], "split": "val"})
    with pytest.raises(ValueError, match="different data"):
        confidence.difference(rows[0], {**rows[1], "options": {"data": "cars98"}})
    gone = {**rows[0], "row_key": "gone", "samples": "../../etc/passwd"}
    assert Confidence(store).interval(gone) is None


def test_the_answer_says_only_what_intervals_say(store) -> None:
    (choices,) = points(store.rows()).values()
    later = points([{**r, "seed": 3} for r in store.rows()])  # a run without seed 0 has its first seed all the same
    assert [p.name for p in next(iter(later.values()))] == [p.name for p in choices]
    (verdict,) = verdicts(choices, Confidence(store))
    assert (verdict.equal, verdict.ahead, verdict.behind) == (["8"], ["15"], ["4"])
    assert verdict.sentence() == (
        "Trained at 8, flexivit_nano against vit_nano_g8: "
        "ahead at grid 15; equal within noise at grid 8; behind at grid 4."
    )
    assert [p.name for p in front(choices)] == ["vit_nano_g8 at grid 4, trained at 8"]
    good, best = cheapest([c for c in choices if c.backbone == "flexivit_nano"], 0.01)
    assert (good.grid, best.grid) == ("4", "4")
    good, best = cheapest([c for c in choices if c.grid != "4"], 0.01)
    assert good.grid == "8"
    assert fastest(choices, 1.0).grid == "4" and fastest(choices, 1e-9) is None
    assert fastest([c for c in choices if c.backbone == "vit_nano_g8"], 100).grid == "4"


def test_two_recipes_are_two_tables_and_two_builds_two_lines(tmp_path) -> None:
    store, right = Store(tmp_path / "run"), np.ones(200)
    one, two = {"steps": 300, "batch": 32}, {"steps": 0, "batch": 32, "accumulate": 1}  # the first is older
    rows = [row(store, "flexivit_nano", 8, 4, right, recipe=one), row(store, "a", 8, 4, right, recipe=two)]
    builds = [{"row_key": p, "backbone_options": {"patch": p}} for p in "xy"]
    rows += [row(store, "flexivit_nano", 8, 8, right, recipe=one, **build) for build in builds]
    found = markdown(rows)
    assert "scenes steps=300 finetune" in found and "scenes steps=0 finetune" in found and "accumulate" not in found
    assert "flexivit_nano (patch=x)" in found and "flexivit_nano (patch=y)" in found and "±" not in found


def test_two_options_are_two_tables_and_never_two_seeds(store) -> None:
    other = row(store, "flexivit_nano", 8, 4, np.ones(200), options={"data": "scenes", "crop": "resmall"})
    store.append([{**other, "row_key": "other"}])
    groups = points(store.rows())
    assert {group[1]: len(choices) for group, choices in groups.items()} == {"scenes": 6, "scenes crop=resmall": 1}


def test_a_page_escapes_what_comes_from_data_and_stays_in_its_folder(store, tmp_path) -> None:
    evil = "<script>alert(1)</script>"
    failed = {"status": "failed", "error": f"torn {evil}", "label": f"f {evil}", "task": "t", "backbone": "b"}
    store.append([{**row(store, evil, 8, 8, [True] * 200), "suite": evil, "label": evil}, failed])
    (store.folder / "pictures").mkdir()
    (tmp_path / "secret.png").write_bytes(b"secret")
    (store.folder / "pictures" / "index.json").write_text(json.dumps({"../../secret.png": evil, "/etc/passwd": "x"}))
    page = build_page(store)
    assert evil not in page and "&lt;script&gt;" in page and "<script" not in page
    assert "c2VjcmV0" not in page and "<figure>" not in page
    assert not re.findall(r'(?:src|href|srcset)="(?!data:)', page)  # nothing is fetched from elsewhere
    assert "/somewhere" not in page and "…/data" in page
    assert "@media (prefers-color-scheme: dark)" in page and 'name="viewport"' in page


def test_the_verb_writes_everything_and_what_is_kept(store, tmp_path) -> None:
    done = CliRunner().invoke(run_all.app, ["report", str(store.folder), "--to", str(tmp_path / "kept")])
    assert done.exit_code == 0, done.output
    written = {p.name for p in (store.folder / "report").iterdir()}
    assert {"page.html", "tables.md", "tables.tex", "rows.csv"} <= written
    assert "classification-scenes-finetune-v1-test-top1_grid.png" in written
    kept = (tmp_path / "kept" / "README.md").read_text()
    assert "equal within noise at grid 8" in kept and "| flexivit_nano | 8 | 70.0 | 70.0 | 70.0 |" in kept
    assert "revision abc" in kept and "/somewhere" not in kept
    tex = latex(store.rows())
    assert r"flexivit\_nano & 8 & 70.0" in tex and tex.count(r"\toprule") == 1
    quick = CliRunner().invoke(run_all.app, ["report", str(store.folder), "--latency", "1"])
    assert "vit_nano_g8 at grid 4" in quick.output
    with pytest.raises(ValueError, match="run a suite with --out"):
        CliRunner().invoke(run_all.app, ["report", str(tmp_path / "none")], catch_exceptions=False)


def test_published_numbers_stand_only_beside_the_same_protocol(store) -> None:
    assert all(p.source and p.status for p in published()) and len(published()) > 50
    (choices,) = points(store.rows()).values()
    base = {"task": "classification", "data": "scenes", "split": "test", "metric": "top1", "backbone": "flexivit_nano",
            "value": 72.5, "status": "found", "source": "Table 1", "train_grid": "8", "eval_grid": "15"}  # fmt: skip
    assert beside(choices, [Published(**base)]) == []
    (line,) = beside(choices, [Published(**base, protocol="finetune-v1")])
    assert "70.0 % here, 72.5 % published" in line and "-2.5 points" in line
    unknown = Published(**{**base, "value": None, "status": "unknown"}, protocol="finetune-v1")
    assert "published: unknown" in beside(choices, [unknown])[0]
