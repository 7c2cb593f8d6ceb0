"""faiss against brute force, metrics of image retrieval against plain loops and worked examples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import TaskError
from tasks.retrieval.images.metrics import average_precision, class_retrieval, revisited_map
from tasks.retrieval.search import build_index, export_index, load_index, nearest


def unit(seed, count, width=16):
    vectors = np.random.default_rng(seed).normal(size=(count, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("float32")


def test_exact_index_equals_brute_force():
    queries, gallery = unit(0, 60), unit(1, 500)
    scores, rows = nearest(queries, gallery, 20)
    expected = np.argsort(-(queries.astype("float64") @ gallery.T.astype("float64")), axis=1)[:, :20]
    assert np.array_equal(rows, expected)
    assert np.allclose(scores, np.take_along_axis(queries @ gallery.T, rows, 1), atol=1e-6)


@pytest.mark.parametrize(("kind", "recall"), [("ivf", 0.2), ("hnsw", 0.95)])
def test_approximate_indices_find_most_neighbours_but_are_not_the_exact_one(kind, recall):
    queries, gallery = unit(0, 50), unit(1, 3000)
    exact = nearest(queries, gallery, 10)[1]
    found = nearest(queries, gallery, 10, kind)[1]
    overlap = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, found, strict=True)])
    assert overlap >= recall
    assert type(build_index(gallery, kind)) is not type(build_index(gallery))


def test_a_query_is_left_out_of_its_own_list_even_among_twins():
    gallery = np.repeat(unit(2, 10), 3, axis=0)
    rows = nearest(gallery, gallery, 2, exclude=np.arange(30))[1]
    assert all(set(own) == {b for b in range(i // 3 * 3, i // 3 * 3 + 3) if b != i} for i, own in enumerate(rows))


def test_exported_index_answers_as_the_direct_search(tmp_path):
    gallery, queries = unit(3, 40), unit(4, 5)
    names = [f"picture {i}.jpg" for i in range(40)]
    index, ids = load_index(export_index(tmp_path / "new" / "gallery", gallery, names))
    assert ids == names
    assert np.array_equal(index.search(queries, 4)[1], nearest(queries, gallery, 4)[1])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 40), st.integers(1, 5))
def test_class_metrics_equal_plain_loops(seed, count, classes):
    labels = np.random.default_rng(seed).integers(0, classes, count)
    vectors = unit(seed, count, 8)
    scores = vectors.astype("float64") @ vectors.T.astype("float64")
    recall, average = {1: [], 4: []}, []
    for i in range(count):
        others = [j for j in np.argsort(-scores[i]) if j != i]
        right = sum(labels[j] == labels[i] for j in others)
        if not right:
            continue
        for k in recall:
            recall[k].append(any(labels[j] == labels[i] for j in others[:k]))
        hits, total = 0, 0.0
        for place, j in enumerate(others[:right], 1):
            if labels[j] == labels[i]:
                hits += 1
                total += hits / place
        average.append(total / right)
    if not average:
        with pytest.raises(TaskError, match="no query has another image of its class"):
            class_retrieval(vectors, vectors, labels, labels, np.arange(count))
        return
    metrics, values = class_retrieval(vectors, vectors, labels, labels, np.arange(count))
    assert metrics["R@1"] == pytest.approx(np.mean(recall[1])) and metrics["R@4"] == pytest.approx(np.mean(recall[4]))
    assert metrics["mAP@R"] == pytest.approx(np.mean(average))
    assert np.nanmean(values["AP@R"]) == pytest.approx(np.mean(average))


def test_separate_gallery_and_chance():
    labels = np.repeat(np.arange(4), 25)
    metrics, _ = class_retrieval(unit(5, 100), unit(6, 100), labels, labels)
    assert metrics["chance_R@1"] == 0.25
    metrics, _ = class_retrieval(unit(5, 100), unit(6, 100), labels, labels, np.arange(100))
    assert metrics["chance_R@1"] == pytest.approx(24 / 99)


def official_map(ranks, gnd):
    """`compute_ap` and `compute_map` of the revisited benchmark, in loops; ranks [G, Q]."""
    found = []
    for i, own in enumerate(gnd):
        if not len(own["ok"]):
            continue
        position = np.arange(ranks.shape[0])[np.isin(ranks[:, i], own["ok"])]
        junk = np.arange(ranks.shape[0])[np.isin(ranks[:, i], own["junk"])]
        k = ij = 0
        for ip in range(len(position)):
            while ij < len(junk) and position[ip] > junk[ij]:
                k += 1
                ij += 1
            position[ip] -= k
        ap, step = 0.0, 1.0 / len(own["ok"])
        for j, rank in enumerate(position):
            first = 1.0 if rank == 0 else j / rank
            ap += (first + (j + 1) / (rank + 1)) * step / 2.0
        found.append(ap)
    return np.mean(found) if found else np.nan


def test_revisited_map_equals_the_official_loops():
    rng = np.random.default_rng(0)
    rows = np.stack([rng.permutation(60) for _ in range(12)])
    truth = []
    for i in range(12):
        pool = rng.permutation(60)
        truth.append({"easy": pool[: i % 4], "hard": pool[10 : 10 + i % 3], "junk": pool[20:27]})
    result = revisited_map(rows, truth)
    settings_ = {"easy": (["easy"], ["junk", "hard"]), "medium": (["easy", "hard"], ["junk"]),
                 "hard": (["hard"], ["junk", "easy"])}  # fmt: skip
    for name, (ok, junk) in settings_.items():
        gnd = [{"ok": np.concatenate([t[n] for n in ok]), "junk": np.concatenate([t[n] for n in junk])} for t in truth]
        assert result[f"mAP_{name}"] == pytest.approx(official_map(rows.T, gnd))
    assert average_precision(np.array([0, 1, 2]), 3) == 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build_index(unit(0, 9), "flatt"), "no index 'flatt'; nearest: flat"),
        (lambda: build_index(np.ones((0, 4))), "not empty"),
        (lambda: nearest(np.full((2, 4), np.nan), np.ones((3, 4)), 1), "2 queries have NaN .* row 0"),
        (lambda: nearest(np.ones((2, 4)), np.ones((3, 5)), 1), "queries have width 4, the gallery 5"),
        (lambda: nearest(np.ones((2, 4)), np.ones((3, 4)), 4), "4 neighbours asked of a gallery of 3"),
        (lambda: export_index("unused", np.ones((2, 4)), ["a"]), "1 ids for 2 vectors"),
        (lambda: export_index("unused", np.ones((2, 4)), ["a", "a"]), "id 'a' is given twice"),
        (lambda: load_index("nowhere"), "no index.faiss in nowhere"),
        (lambda: revisited_map(np.zeros((1, 3), int), [{"easy": [3], "hard": [], "junk": []}]), "gallery image 3"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(TaskError, match=message):
        call()
