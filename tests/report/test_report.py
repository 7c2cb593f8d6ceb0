"""The report: intervals against known ones, the answer's words, tables, and a page without holes for strangers."""

import dataclasses
import json
import re

import numpy as np
import pytest
from scipy.stats import t as student
from typer.testing import CliRunner

import run_all
from benchmarks.engine.identity import data_key
from benchmarks.report.answers.agreement import disagreements
from benchmarks.report.answers.answer import answers
from benchmarks.report.answers.comparisons import trained_at
from benchmarks.report.answers.matrix import matrix, tally
from benchmarks.report.answers.pairwise import compare_backbones
from benchmarks.report.answers.questions import entries, failures
from benchmarks.report.answers.verdicts import as_json
from benchmarks.report.build import read_report
from benchmarks.report.page import build_page
from benchmarks.report.published import Published, beside, published
from benchmarks.report.tables import latex, table_of
from benchmarks.store import Store
from tasks import build_task
from tasks.contract import Recipe

GRIDS = {4: 0.02e9, 8: 0.09e9, 15: 0.35e9}


def row(store, backbone, train, grid, right, **more):
    """A row of classification whose pictures are right or wrong as told."""
    label = np.zeros(len(right), np.int64)
    ranked = np.where(np.asarray(right, bool), 0, 1)[:, None].astype(np.int32)
    key = f"{backbone}-{train}-{grid}-{more.get('seed', 0)}".replace("/", "_").replace("<", "_")[:60]
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


def test_a_failed_cell_is_shown_though_one_of_the_same_label_ran(store) -> None:
    failed = {"status": "failed", "error": "Diverged: the loss is nan", "label": "a label", "cell_key": "one"}
    ran = {"cell_key": "two", "label": "a label"}
    seven = np.arange(200) % 10 < 7
    rows = [row(store, "flexivit_nano", 8, 4, seven, **failed), row(store, "vit_nano_g8", 8, 4, seven, **ran)]
    store.append(rows)
    assert failures(store.rows()) == {"a label": "Diverged: the loss is nan"}
    store.append([{**rows[0], "status": "ok", "error": None}])
    assert failures(store.rows()) == {}


def only_answer(store, **more):
    (answer,) = answers(entries([store]), **more)
    return answer


def test_intervals_are_those_of_a_binomial_and_pairs_share_their_samples(store) -> None:
    answer = only_answer(store)
    at = {(p.backbone, p.grid): p for p in answer.points}
    low, high = at["flexivit_nano", "8"].estimate().interval()
    half = student.ppf(0.975, 199) * np.sqrt(0.7 * 0.3 / 199)
    assert (low, high) == pytest.approx((0.7 - half, 0.7 + half))
    assert table_of(answer).lines[0] == ("flexivit_nano", "8", *(f"70.0 ± {100 * half:.1f}",) * 3)
    (compared,) = answer.comparisons
    at_4, at_8, at_15 = compared.comparison.verdicts
    assert at_8.difference.value == 0 and at_15.difference.value == pytest.approx(0.5)
    assert at_15.difference.se == pytest.approx(np.sqrt(0.25 / 199))  # right in half of the pictures more, never fewer


def test_the_answer_is_the_verdict_at_the_grid_the_fixed_model_was_made_for(store) -> None:
    answer = only_answer(store)
    (compared,) = answer.comparisons
    assert [v.verdict for v in compared.comparison.verdicts] == ["no", "undecided", "yes"]
    assert compared.answering == "8" and compared.answer.grid == "8" and compared.comparison.everywhere == "no"
    assert compared.comparison.verdicts[2].ahead and compared.comparison.hollow
    first = answer.lines()[0]
    assert first.startswith(
        "Trained at 8: Undecided at grid 8 whether flexivit_nano may replace vit_nano_g8: +0.0 points"
    )
    assert first.endswith("not the backbones. Elsewhere: yes at grid 15; no at grid 4.")
    assert "margin 1 (one training run each, 200 pictures; Holm over 3 grids)" in answer.details()[0][1][2]
    assert "95 % intervals per grid" in answer.lines()[-1]
    assert "Surely within 1 point and cheapest: vit_nano_g8 at grid 4" in answer.best_line()
    later = Store(store.folder.parent / "later")
    for r in store.rows():  # a run without seed 0 says the same
        later.save_samples(r.row_key, store.samples(r))
    later.append([r.changed(seed=3) for r in store.rows()])
    assert only_answer(later).lines() == answer.lines()


def test_a_wide_margin_is_a_yes_and_chance_makes_it_narrow(store) -> None:
    (compared,) = only_answer(store, margin=30).comparisons
    assert [v.margin for v in compared.comparison.verdicts] == pytest.approx(
        [0.05, 0.035, 0.01]
    )  # 5 % of what is reached
    told = [r.changed(metrics={**r.metrics, "chance_top1": 1 / 6}) for r in store.rows()]
    store.append(told)
    answer = only_answer(store)
    assert answer.comparisons[0].comparison.verdicts[2].margin == pytest.approx(0.05 * (0.2 - 1 / 6))
    assert answer.words.chance == pytest.approx(1 / 6)


def test_seeds_are_in_the_verdict_and_a_third_model_is_not(tmp_path) -> None:
    store, rng = Store(tmp_path / "run"), np.random.default_rng(0)
    hard = rng.random(400)
    made = {"flexivit_nano": (0.70, 0.62, 0.78), "vit_nano_g8": (0.69, 0.70, 0.71)}
    for name, levels in made.items():
        store.append([row(store, name, 8, 8, hard < level, seed=seed) for seed, level in enumerate(levels)])
    answer = only_answer(store)
    verdict = answer.comparisons[0].answer
    assert verdict.difference.scope == "recipes" and verdict.difference.parts.counts == (3, 3)
    assert verdict.a == pytest.approx(np.mean([(hard < level).mean() for level in made["flexivit_nano"]]))
    assert verdict.verdict == "undecided" and verdict.difference.seed_share > 0.9
    assert "of the uncertainty is training noise" in answer.lines()[0] and "3 seeds" not in answer.lines()[0]
    store.append([row(store, "vit_nano_g15", 8, 8, hard < 0.99, seed=seed) for seed in range(3)])
    again = next(c for c in only_answer(store).comparisons if c.fixed == "vit_nano_g8").answer
    assert (again.p, again.margin, again.verdict) == (verdict.p, verdict.margin, verdict.verdict)
    cells = {c.text: c for line in matrix([only_answer(store)])[1] for c in line.cells}
    assert not any(c.hollow for c in cells.values()) and len(cells) == 1  # tuned at 8 alone, no specialist of 15


def test_what_a_grid_loses_that_was_never_trained(tmp_path) -> None:
    """At grid 8 half way, in log cost, between 60 and 80 % there would be 70.5 %; there are 65."""
    store, n = Store(tmp_path / "run"), np.arange(400)
    levels = {4: 240, 8: 260, 15: 320}
    for train in ("random:4,15", 8, "random:4,8,15", "random:8,15"):
        store.append([row(store, "flexivit_nano", train, g, n < level) for g, level in levels.items()])
    answer = only_answer(store)
    (found,) = answer.penalties
    assert (found.train, dict(found.neighbours)) == ("random:4,15", {"8": ("4", "15")})
    low, own, high = (np.log(GRIDS[g]) for g in levels)
    expected = 0.6 + 0.2 * (own - low) / (high - low) - 0.65
    assert found.grids["8"].value == pytest.approx(expected) and round(expected, 3) == 0.055
    ends = "[" + ", ".join(f"{100 * end:+.1f}" for end in found.grids["8"].interval()) + "]"
    assert (
        "At grids that it was never trained at, flexivit_nano, trained at random:4,15, loses against a line between "
        f"the trained ones, in points: {100 * expected:+.1f} {ends} at grid 8 (between 4 and 15). "
        "One training run each."
    ) in answer.lines()
    (kept,) = as_json(answer)["penalties"]
    assert kept["value"] == pytest.approx(expected) and kept["between"] == ["4", "15"] and kept["grid"] == "8"
    assert trained_at("random:4,8x10") == {"4", "8x10"} and trained_at("who knows") == set()


def test_every_table_names_the_unit_of_its_intervals(store, tmp_path) -> None:
    assert "The unit of the intervals: one of 200 pictures." in only_answer(store).lines()
    assert "The unit of the intervals: one of 200 pictures." in build_page([store], answers(entries([store])))
    names = {
        ("segmentation", "camvid11"): "blocks of 10 frames", ("segmentation", "cityscapes"): "drives",
        ("segmentation", "ade20k"): "pictures", ("retrieval", "flickr8k"): "pictures with all their captions",
        ("image_retrieval", "cars98"): "query pictures", ("classification", "cars98"): "pictures",
    }  # fmt: skip
    for (task, data), name in names.items():
        assert build_task(task, tmp_path, {"data": data}).card.units == name


def test_an_untrained_model_that_was_not_evaluated_at_its_own_grid_is_no_specialist(tmp_path) -> None:
    """It stood for the nearest grid, where it is poor, and the flexible model kept 258 % of it."""
    store, n = Store(tmp_path / "run"), np.arange(400)
    right = {"flexivit_nano": {4: 200, 15: 280}, "vit_nano_g8": {4: 90, 15: 100}, "vit_nano_g15": {4: 40, 15: 300}}
    for name, by_grid in right.items():
        store.append([row(store, name, None, g, n < k, label=name) for g, k in by_grid.items()])
    answer = only_answer(store)
    (kept,) = answer.kept
    assert kept.specialists == {"15": "vit_nano_g15"}
    assert [(c.fixed, c.answering) for c in answer.answering()] == [("vit_nano_g15", "15")]
    assert {c.fixed: [v.verdict for v in c.comparison.verdicts] for c in answer.comparisons} == {
        "vit_nano_g8": ["yes", "yes"], "vit_nano_g15": ["yes", "no"],
    }  # fmt: skip


def test_retention_is_over_the_grids_that_have_a_specialist(tmp_path) -> None:
    store, n = Store(tmp_path / "run"), np.arange(400)
    right = {"flexivit_nano": {8: 240, 15: 280}, "vit_nano_g8": {8: 260, 15: 100}, "vit_nano_g15": {8: 90, 15: 300}}
    for name, by_grid in right.items():
        for train in (8, 15) if name == "flexivit_nano" else (int(name.rpartition("g")[2]),):
            store.append([row(store, name, train, g, n < k, label=f"{name} {train}") for g, k in by_grid.items()])
    answer = only_answer(store)
    kept = {k.train: k for k in answer.kept}
    assert kept["8"].specialists == {"8": "vit_nano_g8", "15": "vit_nano_g15"}
    assert kept["8"].retention.estimate.value == pytest.approx((240 + 280) / (260 + 300))
    assert kept["8"].retention.weights == (0.5, 0.5) and kept["8"].retention.worst[0] in ("8", "15")
    assert {(c.fixed, c.train, c.answering) for c in answer.answering()} == {
        ("vit_nano_g8", "8", "8"), ("vit_nano_g15", "15", "15"),
    }  # fmt: skip
    columns, (line,) = matrix([answer])
    assert columns == ["vit_nano_g8", "vit_nano_g15"] and [c.verdict for c in line.cells] == ["no", "no"]
    assert all(c.hollow and c.mark == "✗" and "one training run each" in c.label for c in line.cells)
    assert tally([answer]) == {"flexivit_nano": {"no, hollow": 2}}


def test_samples_that_do_not_belong_to_a_row_give_no_verdict(store) -> None:
    rows = store.rows()
    store.save_samples(rows[0].row_key, store.samples(rows[3]))
    (store.folder / "samples" / f"{rows[1].row_key}.npz").write_bytes(b"torn")
    few = {k: v[:100] for k, v in store.samples(rows[2]).items()}
    few["label"] = np.where(np.arange(100) < 70, few["ranked"][:, 0], 9)
    store.save_samples(rows[2].row_key, few)
    with pytest.warns(UserWarning, match="cannot be read"):
        answer = only_answer(store)
    unknown = answer.comparisons[0].unknown
    assert "its per-sample values give 1, the row says 0.7" in unknown["4"]
    assert "nothing is kept of its samples" in unknown["8"] and "measured over other samples" in unknown["15"]
    assert table_of(answer).lines[0] == ("flexivit_nano", "8", "70.0", "70.0", table_of(answer).lines[0][4])
    assert any(line.startswith("No verdict: ") for line in answer.lines())


def test_what_is_not_known_to_be_flexible_or_fixed_is_compared_only_on_demand(tmp_path) -> None:
    store, n = Store(tmp_path / "run"), np.arange(400)
    store.append([row(store, "mine.safetensors", 8, 8, n < 300), row(store, "vit_nano_g8", 8, 8, n < 290)])
    assert not only_answer(store).comparisons
    assert only_answer(store).lines()[-1].startswith("No flexible model stands beside a fixed one")
    (pair,) = compare_backbones(store, "mine.safetensors", "vit_nano_g8")
    assert pair.compared.answer is None and pair.compared.comparison.verdicts[0].verdict == "yes"
    store.append([r.changed(flexible=True) for r in store.rows() if r.backbone == "mine.safetensors"])
    assert only_answer(store).comparisons[0].answer.verdict == "yes"


def test_other_units_and_lower_is_better(tmp_path) -> None:
    """A row whose metric is an error in metres; its file of samples is that of nobody, so it has no interval."""
    store = Store(tmp_path / "run")
    told = {"metric": "rmse", "higher_is_better": False, "measure": {"name": "rmse", "unit": "m", "scale": 1.0}}
    for seed, value in enumerate((4.5, 4.57, 4.64)):
        one = row(store, "flexivit_nano", 8, 8, np.ones(10), seed=seed)
        store.append([one | told | {"metrics": {"rmse": value}}])
    answer = only_answer(store)
    half = student.ppf(0.975, 2) * 0.07 / 3**0.5
    assert table_of(answer).lines == (("flexivit_nano", "8", f"4.57 ± {half:.2f}"),)
    assert table_of(answer).title.endswith("rmse in m") and ">457" not in build_page([store], [answer])
    assert answer.rules.margin is None and not answer.rules.higher and not answer.rules.fraction


def test_two_recipes_are_two_tables_and_two_builds_two_lines(tmp_path) -> None:
    store, right = Store(tmp_path / "run"), np.ones(200)
    one, two = {"steps": 300, "batch": 32}, {"steps": 0, "batch": 32, "accumulate": 1}  # the first is older
    rows = [row(store, "flexivit_nano", 8, 4, right, recipe=one), row(store, "a", 8, 4, right, recipe=two)]
    builds = [{"row_key": p, "backbone_options": {"patch": p}} for p in "xy"]
    rows += [row(store, "flexivit_nano", 8, 8, right, recipe=one, **build) for build in builds]
    (store.folder / "rows.jsonl").write_text("".join(json.dumps({**r, "row_format": 1}) + "\n" for r in rows))
    found = read_report([store]).markdown()
    assert "scenes steps=300 finetune" in found and "scenes steps=0 finetune" in found and "accumulate" not in found
    assert "flexivit_nano (patch=x)" in found and "flexivit_nano (patch=y)" in found


def test_a_row_that_is_older_than_a_value_of_recipes_has_its_default(tmp_path) -> None:
    store, right = Store(tmp_path / "run"), np.ones(200)
    whole = dataclasses.asdict(Recipe()) | {"steps": 300}
    older = {k: v for k, v in whole.items() if k != "accumulate"}
    store.append([row(store, "flexivit_nano", 8, 4, right, recipe=older)])
    store.append([row(store, "vit_nano_g8", 8, 4, right, recipe=whole)])
    assert len(only_answer(store).comparisons) == 1
    store.append([row(store, "vit_nano_g15", 8, 4, right, recipe=whole | {"accumulate": 4})])
    assert len(answers(entries([store]))) == 2


def test_options_limits_and_contents_are_tables_and_views_are_columns_never_seeds(store) -> None:
    alone = {"other": {"options": {"data": "scenes", "crop": "resmall"}}, "few": {"limit": 20}}
    alone |= {"moved": {"data_identity": {"test": "content:0"}}}
    for key, more in alone.items():
        store.append([{**row(store, "flexivit_nano", 8, 4, np.ones(200), **more), "row_key": key}])
    found = {a.group[1]: len(a.points) for a in answers(entries([store]))}
    moved = f"scenes contents={data_key(alone['moved'])[:8]}"
    assert found == {"scenes": 6, "scenes crop=resmall": 1, moved: 1}  # and not the smoke test
    views = Store(store.folder.parent / "views")
    options = [{"view_options": {"neighbours": k}, "row_key": f"k{k}"} for k in (1, 20)] + [{"resize": "bilinear"}]
    views.append([row(views, "flexivit_nano", 8, 4, np.ones(200), **o) | o for o in options])
    columns = table_of(only_answer(views)).columns
    assert set(columns) == {"4 neighbours=1", "4 neighbours=20", "4 bilinear"}


def test_several_folders_are_one_page_where_they_agree(store, tmp_path) -> None:
    other, n = Store(tmp_path / "other"), np.arange(200)
    other.append([row(other, "vit_nano_g15", 8, 8, n % 10 < 7), row(other, "flexivit_nano", 8, 8, n % 10 < 6)])
    report = read_report([store, other])
    assert not report.notes and len(report.answers) == 1
    lines = {line[0] for line in table_of(report.answers[0]).lines}
    assert lines == {"flexivit_nano [run]", "flexivit_nano [other]", "vit_nano_g8", "vit_nano_g15"}
    pairs = {(c.flexible, c.fixed) for c in report.answers[0].comparisons}
    assert ("flexivit_nano [run]", "vit_nano_g15") in pairs
    third = Store(tmp_path / "third")
    third.append([row(third, "vit_nano_g8", 8, 8, n % 10 < 7, recipe={"steps": 5}, protocol="finetune-v9")])
    (note,) = disagreements([store, third])
    assert "do not agree in protocol (finetune-v1, finetune-v9)" in note and "classification scenes, test" in note
    assert "steps (-, 5)" in note
    assert len(read_report([store, third]).answers) == 2
    done = CliRunner().invoke(
        run_all.app, ["report", *map(str, (store.folder, third.folder)), "--out", str(tmp_path / "page")]
    )
    assert done.exit_code == 0, done.output
    assert "note: classification scenes, test" in done.output
    assert "do not agree in protocol" in (tmp_path / "page" / "page.html").read_text(encoding="utf-8")


def test_compare_backbones_of_a_folder_and_folders(store, tmp_path, monkeypatch) -> None:
    def called(*arguments: str) -> str:
        done = CliRunner().invoke(run_all.app, ["compare", *arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    text = called("flexivit_nano", "vit_nano_g8", "--run", str(store.folder))
    assert "At grid 4 flexivit_nano may not replace vit_nano_g8: -30.0 points" in text
    assert "Undecided at grid 8: " in text and "At grid 15 it may, and is better" in text
    assert "Not at every grid." in text
    turned = json.loads(called("vit_nano_g8", "flexivit_nano", "--run", str(store.folder), "--margin", "0.5", "--json"))
    verdicts = turned["comparisons"][0]["verdicts"]
    assert [v["verdict"] for v in verdicts] == ["yes", "undecided", "no"] and verdicts[0]["margin"] == 0.005
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "runs").symlink_to(tmp_path)
    assert called("flexivit_nano", "vit_nano_g8", "--run", str(store.folder)) == text
    other, n = Store(tmp_path / "other"), np.arange(200)
    other.append([row(other, "flexivit_nano", 8, 8, n % 10 < 2)])
    assert "At grid 8 flexivit_nano [run] may replace flexivit_nano [other], and is better: +50.0" in called(
        str(store.folder), str(other.folder)
    )
    twin = Store(tmp_path / "twin")
    for r in store.rows():
        twin.save_samples(r.row_key, store.samples(r))
    twin.append(store.rows())
    itself = called(str(store.folder), str(twin.folder))
    assert "may not" not in itself and "At every grid it may." in itself
    for arguments, words in (
        (("flexivit_nan", "vit_nano_g8", "--run", str(store.folder)), "it has: flexivit_nano"),
        ((str(store.folder), "nowhere"), "nowhere is no folder"),
        ((str(store.folder), str(tmp_path)), "no rows in"),
        (("vit_nano_g8", "nowhere"), "has rows of both vit_nano_g8 and nowhere"),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            called(*arguments)


def test_the_verb_writes_everything_and_what_is_kept(store, tmp_path) -> None:
    done = CliRunner().invoke(run_all.app, ["report", str(store.folder), "--to", str(tmp_path / "kept")])
    assert done.exit_code == 0, done.output
    written = {p.name for p in (store.folder / "report").iterdir()}
    assert {"page.html", "tables.md", "tables.tex", "rows.csv", "verdicts.json"} <= written
    assert {f"classification-scenes-finetune-v1-test-top1_{a}" for a in ("grid.png", "grid.pdf", "macs.pdf")} <= written
    kept = (tmp_path / "kept" / "README.md").read_text(encoding="utf-8")
    assert (
        "Undecided at grid 8 whether flexivit_nano may replace" in kept and "| flexivit_nano | 8 | 70.0 ± 6.4 |" in kept
    )
    told = json.loads((tmp_path / "kept" / "verdicts.json").read_text(encoding="utf-8"))
    assert [v["verdict"] for v in told[0]["comparisons"][0]["verdicts"]] == ["no", "undecided", "yes"]
    assert told[0]["best"]["measured"] == "vit_nano_g8 at grid 4, trained at 8" and told[0]["margin"] == 0.01
    page = (store.folder / "report" / "page.html").read_text(encoding="utf-8")
    assert 'class="undecided hollow"' in page and 'aria-label="undecided (one training run each)"' in page
    assert "revision abc" in kept and "/somewhere" not in kept
    tex = latex(answers(entries([store])))
    assert r"flexivit\_nano & 8 & 70.0 $\pm$ 6.4" in tex and tex.count(r"\toprule") == 1
    with pytest.raises(ValueError, match="run a suite with --out"):
        CliRunner().invoke(run_all.app, ["report", str(tmp_path / "none")], catch_exceptions=False)


def test_published_numbers_stand_only_beside_the_same_protocol(store) -> None:
    assert all(p.source and p.status for p in published()) and len(published()) > 50
    choices = only_answer(store).points
    base = {"task": "classification", "data": "scenes", "split": "test", "metric": "top1", "backbone": "flexivit_nano",
            "value": 72.5, "status": "found", "source": "Table 1", "train_grid": "8", "eval_grid": "15"}  # fmt: skip
    assert beside(choices, [Published(**base)]) == []
    (line,) = beside(choices, [Published(**base, protocol="finetune-v1")])
    assert "70.0 % here, 72.5 % published" in line and "-2.5 points" in line
    unknown = Published(**{**base, "value": None, "status": "unknown"}, protocol="finetune-v1")
    assert "published: unknown" in beside(choices, [unknown])[0]
