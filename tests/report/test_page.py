"""The page and what stands on it: escaped, whole, with what is missing; latency, budget and plots."""

import json
import re

import numpy as np
import pytest
from test_report import GRIDS, only_answer, row, store  # noqa: F401  (a fixture)
from typer.testing import CliRunner

import run_all
from benchmarks.cost.latency import Latency, keep_latencies, read_latencies
from benchmarks.report.answers.matrix import headline
from benchmarks.report.build import latency_lines, read_report
from benchmarks.report.page import build_page
from benchmarks.report.page.budget import budget_steps
from benchmarks.report.page.provenance import missing
from benchmarks.report.plots import plot
from benchmarks.store import Store


def late(key: str, ms: float, **more) -> Latency:
    usual = {"label": "a", "device": "box", "precision": "float32", "batch": 1, "low": ms - 1, "high": ms + 1}
    return Latency(**{"row": key, "ms": ms, "calls": 30, "pause": 0.2, "slowed": "", "made": "today", **usual, **more})


def test_latency_is_only_what_was_measured_as_latency(store) -> None:  # noqa: F811
    def told(limit: float) -> str:
        return "\n".join(latency_lines(read_report([store]), limit))

    with pytest.raises(ValueError, match="no latency was measured in .*; try: run_all.py latency"):
        told(5.0)
    first, second = (next(r for r in store.rows() if r.backbone == n) for n in ("flexivit_nano", "vit_nano_g8"))
    keep_latencies(store, [late(first.row_key, 3.0), late(second.row_key, 9.0, slowed="the processor throttled")])
    keep_latencies(store, [late(first.row_key, 3.2), late(second.row_key, 1.0, batch=8)])  # the newest counts
    with open(store.folder / "latency.jsonl", "a") as file:
        file.write('{"row": 3}\nx\n')
    line = "classification scenes finetune-v1, test, top1 (box, float32, batch 1): "
    assert told(5.0).startswith(f"{line}flexivit_nano at grid 4, trained at 8, 3.2 [2.2, 4.2] ms, 70.0 %; 0 others")
    assert told(10.0).startswith(f"{line}vit_nano_g8 at grid 4, trained at 8, 9 [8, 10] slowed ms, 100.0 %")
    assert told(1.0) == f"{line}nothing is so fast"
    assert [f for f in store.faults if "latency.jsonl:5" in f and "row is 3" in f]
    done = CliRunner().invoke(run_all.app, ["report", str(store.folder), "--latency", "5"], catch_exceptions=False)
    assert done.output.startswith(line)


def test_what_names_a_table_stands_outside_the_box_that_scrolls(store) -> None:  # noqa: F811
    """A caption inside would be as wide as the table: on a phone half of it was out of sight."""
    page = build_page([store], read_report([store]).answers).partition('<script type="application/json"')[0]
    boxes = re.findall(r'<div class="wide".*?</div>', page, re.DOTALL)
    outside = re.sub(r'<div class="wide".*?</div>', "", page, flags=re.DOTALL)
    named = [re.search(r'<table[^>]* aria-labelledby="([^"]+)"', box).group(1) for box in boxes if "<table" in box]
    assert len(named) == 4 and "<caption" not in page
    assert all(f'id="{name}"' in outside for name in named)


def test_the_page_says_what_is_missing_and_what_a_budget_buys(store) -> None:  # noqa: F811
    rows = store.rows()
    twin = [r.row_key for r in rows if r.backbone == "flexivit_nano"]
    failed = {"status": "failed", "error": "torn", "label": "f at 8", "task": "classification", "backbone": "b"}
    hole = row(store, "vit_nano_g15", 8, 4, [True] * 200, limit=None)
    store.append([failed, hole, rows[0].changed(identical_to=twin[1:], skipped={"test": {"count": 2}})])
    answer = only_answer(store)
    found = missing(store.rows(), [answer])
    assert found["Failed"] == ["f at 8: torn"] and found["Passed over"] == ["flexivit_nano at 4, test: {'count': 2}"]
    assert found["Holes"][0].endswith("vit_nano_g15, trained at 8 has no value at 8, 15")
    assert found["Identical samples"] == ["flexivit_nano at 4, test: byte-identical samples at 4, 8, 15"]
    steps = budget_steps(answer, [p.macs for p in answer.choices])
    assert [cost for cost, _ in steps] == [int(GRIDS[4])]  # at twice the cost nothing is better
    best = answer.choices[steps[0][1].measured]
    assert (best.backbone, best.grid) == ("vit_nano_g8", "4") and steps[0][1].could_be[0] == steps[0][1].measured
    keep_latencies(store, [late(r.row_key, 10.0 + i) for i, r in enumerate(rows)])
    page = build_page([store], [answer], latencies=read_latencies([store]))
    assert '"settings":["box, float32, batch 1"]' in page and '"ms":[10.0]' in page
    assert "<td>10 [9, 11]</td>" in page


def test_the_answer_in_one_sentence(store, tmp_path) -> None:  # noqa: F811
    assert headline([only_answer(store)]) == (
        "Not shown that flexivit_nano may replace a fixed model: of 1 answer 1 undecided."
    )
    assert "nothing is answered" in headline([])
    sure, n = Store(tmp_path / "sure"), np.arange(400)
    for seed in range(3):
        sure.append([row(sure, "vit_nano_g8", 8, 8, n < 200, seed=seed)])
        sure.append([row(sure, "flexivit_nano", 8, 8, n < 300, seed=seed)])
    assert headline([only_answer(sure)]).startswith("Yes: flexivit_nano may replace every fixed model")
    for seed in range(3):
        sure.append([row(sure, "vit_nano_g15", 15, 15, n < 390, seed=seed)])
        sure.append([row(sure, "flexivit_nano", 15, 15, n < 300, seed=seed)])
    assert headline([only_answer(sure)]) == (
        "In part: flexivit_nano may replace the fixed model in 1 of 2 answers; 1 no."
    )


def test_a_page_escapes_what_comes_from_data_and_stays_in_its_folder(store, tmp_path) -> None:  # noqa: F811
    evil = "<script>alert(1)</script>"
    failed = {"status": "failed", "error": f"torn {evil}", "label": f"f {evil}", "task": "t", "backbone": "b"}
    store.append([{**row(store, evil, 8, 8, [True] * 200), "suite": evil, "label": evil}, failed])
    (store.folder / "pictures").mkdir()
    (tmp_path / "secret.png").write_bytes(b"secret")
    (store.folder / "pictures" / "index.json").write_text(json.dumps({"../../secret.png": evil, "/etc/passwd": "x"}))
    report = read_report([store])
    page = build_page([store], report.answers)
    assert evil not in report.markdown() and "&lt;script" in report.markdown()
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", page, re.S)
    told, library, own = scripts
    text = re.sub(r"<script[^>]*>.*?</script>", "", page, flags=re.S)
    assert evil not in page and "&lt;script&gt;" in text and "<script" not in text
    assert "\\u003cscript>" in told and evil in str(json.loads(told)) and "<script" not in told + own
    assert "c2VjcmV0" not in page and "<figure>" not in page
    assert not re.findall(r'(?:src|href|srcset)="(?!data:|#)', text)  # nothing is fetched from elsewhere
    assert "default-src 'none'" in text and "vegaEmbed" in library and len(page.encode()) < 3_000_000
    assert "/somewhere" not in page and "…/data" in page
    assert "@media (prefers-color-scheme: dark)" in page and 'name="viewport"' in page


@pytest.mark.parametrize("name", ["flexivit_nano", "weights/somebody/a_flexible_backbone_of_many_words.pth"])
def test_a_legend_is_whole(tmp_path, name) -> None:
    told = Store(tmp_path / "run")
    for backbone in (name, "vit_nano_g8", "vit_nano_g15"):
        told.append([row(told, backbone, train, 8, [True, False] * 9) for train in (8, 15)])
    figure = plot(only_answer(told), "grid")
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box, axes = legend.get_window_extent(), figure.axes[0].get_window_extent()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= axes.y0
    assert axes.height > 0.5 * figure.bbox.width * 0.9 * 0.9 / 1.25  # the plot stays a plot
