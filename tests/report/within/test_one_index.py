"""One index for every grid: what is kept of each query, and the interval over queries that the report makes of it."""

import itertools
import json

import numpy as np
import pytest
from report.test_report import only_answer, row
from scipy.stats import t as student

from benchmarks.report.answers.questions import entries
from benchmarks.report.answers.verdicts import as_json
from benchmarks.report.one_index import one_index
from benchmarks.store import Store

GRIDS = (4, 8, 15)
N = 300


def searched(path, hits, seeds=(None,), **more):
    """Rows of image retrieval whose queries find, at grid g in the gallery of h, `hits(g, h, seed)` [N]."""
    store = Store(path)
    for seed, g in itertools.product(seeds, GRIDS):
        found = {"R@1" if h == g else f"R@1_gallery_{h}x{h}": hits(g, h, seed or 0) for h in GRIDS}
        own = {
            "task": "image_retrieval", "protocol": "image-retrieval-v1", "options": {"data": "cars98"}, "metric": "R@1",
            "metrics": {name: float(np.nanmean(v)) for name, v in found.items()}, "seed": seed or 0,
            "row_key": f"index-{seed}-{g}", "steps": 0,
        } | more  # fmt: skip
        made = row(store, "flexivit_nano", None if seed is None else 8, g, np.ones(N)) | own
        samples = store.save_samples(own["row_key"], {"ids": np.arange(N), **found})
        store.append([made | {"samples": samples}])
    return store


def test_the_interval_is_of_paired_queries(tmp_path) -> None:
    """Galleries of another grid lose every tenth query, the same at every pair: a mean of zeros and ones."""
    right = np.arange(N) % 10 < 5
    lost = np.arange(N) % 10 == 0
    store = searched(tmp_path, lambda g, h, _: (right if g == h else right & ~lost).astype(float))
    answer = only_answer(store)
    (found,) = answer.indexes
    assert (found.own.value, found.across.value) == pytest.approx((0.5, 0.4)) and found.grids == ("4", "8", "15")
    half = student.ppf(0.975, N - 1) * np.sqrt(0.1 * 0.9 / (N - 1))
    assert found.loss.interval() == pytest.approx((-0.1 - half, -0.1 + half))
    assert found.line(answer.words) in answer.lines()
    assert found.line(answer.words).startswith(
        "One index for every grid: flexivit_nano finds 40.0 % where the gallery was embedded at another grid than the "
        f"query's, 50.0 % at one grid: -10.0 points [{-10 - 100 * half:+.1f}, {-10 + 100 * half:+.1f}] (3 grids"
    )
    (told,) = json.loads(json.dumps(as_json(answer)))["one_index"]
    assert told["loss"]["value"] == pytest.approx(-0.1) and set(told["galleries"]) == {"4", "8", "15"}


def test_every_pair_counts_and_the_best_gallery_is_named(tmp_path) -> None:
    level = {(g, h): 100 + 10 * GRIDS.index(g) + 7 * (h == 8) - 5 * (g != h) for g in GRIDS for h in GRIDS}
    store = searched(tmp_path, lambda g, h, _: (np.arange(N) < level[g, h]).astype(float))
    (found,) = only_answer(store).indexes
    assert found.own.value == pytest.approx(np.mean([level[g, g] for g in GRIDS]) / N)
    assert found.across.value == pytest.approx(np.mean([v for (g, h), v in level.items() if g != h]) / N)
    for h in GRIDS:
        assert found.galleries[str(h)].value == pytest.approx(np.mean([level[g, h] for g in GRIDS if g != h]) / N)
    assert found.best == "8"


def test_queries_that_no_gallery_answers_are_left_out_and_seeds_are_in_the_interval(tmp_path) -> None:
    blank = np.where(np.arange(N) < 20, np.nan, 0.0)

    def hits(g, h, seed):
        return (np.arange(N) % 10 < 5 - seed - (g != h)).astype(float) + blank

    one = only_answer(searched(tmp_path / "one", hits, seeds=(0,))).indexes[0]
    several = only_answer(searched(tmp_path / "several", hits, seeds=(0, 1, 2))).indexes[0]
    assert one.loss.hollow and "One training run." in one.line(only_answer(Store(tmp_path / "one")).words)
    assert several.loss.scope == "recipes" and several.own.half_width() > 2 * one.own.half_width()
    assert one.own.value == pytest.approx(np.nanmean(hits(4, 4, 0)))


def test_rows_without_what_each_query_found_have_no_sentence(tmp_path) -> None:
    store = searched(tmp_path / "whole", lambda g, h, _: np.ones(N))
    assert len(one_index(entries([store]))) == 1
    rows = store.rows()
    older = Store(tmp_path / "older")  # as before: the mean in the row alone
    older.append([
        {**dict(r), "samples": older.save_samples(r.row_key, {"ids": np.arange(N), "R@1": np.ones(N)})} for r in rows
    ])  # fmt: skip
    assert one_index(entries([older])) == []
    for kind, odd in (("text", np.full(N, "yes")), ("other", np.zeros(N)), ("nothing", np.full(N, np.nan))):
        bad = Store(tmp_path / kind)
        bad.append([
            {**dict(r), "samples": bad.save_samples(
                r.row_key, {k: odd if "gallery_8x8" in k else v for k, v in store.samples(r).items()})}
            for r in rows
        ])  # fmt: skip
        assert one_index(entries([bad])) == []
    single = Store(tmp_path / "single")
    single.append([{**dict(rows[0]), "samples": single.save_samples(rows[0].row_key, store.samples(rows[0]))}])
    assert one_index(entries([single])) == []
