"""`score classification`: top-1 and top-5 of files, and every fault of them named."""

import json

import numpy as np
import pytest
from front_door import call

from benchmarks.report.statistics.jackknife import deal_groups, replicates_of_sums
from benchmarks.report.statistics.variance import arm_of, estimate
from tasks import build_task
from tasks.classification.prediction_files import score_classification
from tasks.data.errors import Missing, Wrong

LABEL = np.array([1, 2, 0, 3, 1, 5])
RANKED = np.array(
    [[1, 0, 2, 3, 4], [0, 2, 1, 3, 4], [0, 1, 2, 3, 4], [4, 5, 1, 0, 3], [5, 4, 3, 2, 0], [5, 4, 3, 2, 1]]
)


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_ranks_logits_and_their_files_agree(tmp_path):
    found = score_classification(save(tmp_path / "a.npz", ids=np.arange(6), ranked=RANKED, label=LABEL))
    assert found.metrics["top1"] == 3 / 6 and found.metrics["top5"] == 5 / 6
    assert found.metrics["top1_low"] < 0.5 < found.metrics["top1_high"]
    assert found.counts == {"images": 6, "images_without_label": 0, "classes": 6} and found.notes == ()
    assert list(found.as_json()) == ["task", "protocol", "metrics", "counts"] and found.protocol == "top-k"
    logits = np.full((6, 6), -9, np.float32)
    np.put_along_axis(logits, RANKED, np.arange(5, 0, -1, dtype=np.float32)[None], 1)
    np.save(tmp_path / "label.npy", LABEL.astype(np.uint8)), np.save(tmp_path / "ranked.npy", RANKED)
    np.save(tmp_path / "logits.npy", logits)
    save(tmp_path / "b.npz", logits=logits, label=LABEL)
    for predictions, labels in (("b.npz", None), ("logits.npy", "label.npy"), ("ranked.npy", "label.npy")):
        again = score_classification(tmp_path / predictions, labels and tmp_path / labels)
        assert again.metrics == found.metrics and again.counts == found.counts


@pytest.mark.parametrize("count", [2, 7, 300, 1000])
def test_intervals_are_those_of_the_report(tmp_path, count):
    rng = np.random.default_rng(count)
    label = rng.integers(0, 6, count)
    label[rng.random(count) < 0.1] = -1
    label[:2] = 1
    ranked = np.argsort(rng.random((count, 6)), axis=1)[:, :5]
    found = score_classification(save(tmp_path / "a.npz", ranked=ranked, label=label)).metrics
    groups = deal_groups(count)
    sums = build_task("classification", tmp_path, {"data": "scenes"}).sums({"ranked": ranked, "label": label})
    arm = arm_of([[replicates_of_sums(*sums, groups)]], groups.units)
    own = estimate(lambda metrics: metrics[0], [arm], floor=True)
    assert (found["top1"], found["top1_low"], found["top1_high"]) == pytest.approx((own.value, *own.interval()))


def test_one_picture_has_no_interval(tmp_path):
    found = score_classification(save(tmp_path / "a.npz", ranked=RANKED[:1], label=LABEL[:1])).metrics
    assert found["top1"] == 1 and found["top1_low"] is None and found["top1_high"] is None


def test_several_right_labels_and_pictures_without(tmp_path):
    label = np.array([[1, 4], [-1, -1], [-1, 7], [3, -1], [0, 5], [-1, -1]])
    found = score_classification(save(tmp_path / "a.npz", ranked=RANKED, label=label))
    assert found.metrics["top1"] == 2 / 4 and found.counts["images"] == 4 and found.counts["images_without_label"] == 2


def test_fewer_ranks_than_five(tmp_path):
    two = score_classification(save(tmp_path / "a.npz", ranked=[[1, 0], [0, 1]], label=[1, 1]))
    assert two.metrics["top1"] == 0.5 and two.metrics["top5"] == 1
    some = score_classification(save(tmp_path / "b.npz", ranked=RANKED[:, :2], label=LABEL))
    assert some.metrics["top5"] is None and some.metrics["top1"] == 0.5 and "top5 is not known" in some.notes[0]
    ten = np.concatenate([RANKED, np.tile(np.arange(10, 15), (6, 1))], 1)
    ten[4, 5], kept = 1, {"label": LABEL}
    assert score_classification(save(tmp_path / "c.npz", ranked=ten, **kept)).metrics["top5"] == 5 / 6


@pytest.mark.parametrize("from_one", ["labels", "predictions"])
def test_labels_that_count_from_one_are_doubted(tmp_path, from_one):
    label, ranked = (LABEL + 1, RANKED) if from_one == "labels" else (LABEL, RANKED + 1)
    label[4:], ranked[4:, 0] = label[0], ranked[0, 0]
    ranked[4:, 1:] = [10, 11, 12, 13]
    found = score_classification(save(tmp_path / "a.npz", ranked=ranked, label=label))
    assert found.metrics["top1"] < 0.2 and any(f"if {from_one} count from 1" in note for note in found.notes)


FLOATS = np.zeros((6, 6)) + np.arange(6)
WRONG = {
    "1-D ranks": ({"ranked": LABEL, "label": LABEL}, r"ranked must be \[N, k\]"),
    "a number": ({"ranked": 3, "label": LABEL}, "ranked"),
    "lengths differ": ({"ranked": RANKED[:5], "label": LABEL}, "ranked has 5 rows, label has 6"),
    "no rows": ({"ranked": RANKED[:0], "label": LABEL[:0]}, "label must be"),
    "logits as ranks": ({"ranked": FLOATS, "label": LABEL}, "ranked holds floats.*logits go into"),
    "whole logits as ranks": ({"ranked": RANKED - 3, "label": LABEL}, "row 0: ranked -2 is no class"),
    "equal logits as ranks": ({"ranked": RANKED // 2, "label": LABEL}, "row 0: ranked class 0 is ranked twice"),
    "ranks as logits": ({"logits": RANKED, "label": LABEL}, "logits holds integers"),
    "both": ({"logits": FLOATS, "ranked": RANKED, "label": LABEL}, "must have one of the arrays ranked and logits"),
    "neither": ({"prediction": RANKED, "label": LABEL}, "it has: prediction, label"),
    "no labels": ({"ranked": RANKED}, "has no labels; say --labels"),
    "texts": ({"ranked": RANKED.astype(str), "label": LABEL}, "ranked holds texts"),
    "labels as texts": ({"ranked": RANKED, "label": LABEL.astype(str)}, "label holds texts"),
    "objects": ({"ranked": RANKED, "label": np.array([None] * 6)}, "label holds objects"),
    "booleans": ({"ranked": RANKED > 1, "label": LABEL}, "ranked holds booleans"),
    "float labels": ({"ranked": RANKED, "label": LABEL + 0.5}, "label holds floats"),
    "negative labels": ({"ranked": RANKED, "label": LABEL - 3}, "row 0: label -2 is no label"),
    "labels in 3-D": ({"ranked": RANKED, "label": LABEL.reshape(6, 1, 1)}, "label must be"),
    "no label at all": ({"ranked": RANKED, "label": LABEL * 0 - 1}, "no picture has a label"),
    "label beyond logits": ({"logits": FLOATS, "label": LABEL + 1}, "row 5: label 6 is no class of 6 logits, 0..5; do"),
    "NaN": ({"logits": np.where(FLOATS == 2, np.nan, FLOATS), "label": LABEL}, "row 0: logits nan is no finite"),
    "infinite": ({"logits": np.where(FLOATS == 2, np.inf, FLOATS), "label": LABEL}, "logits inf"),
    "one class": ({"logits": FLOATS[:, :1], "label": LABEL * 0}, "at least two classes"),
    "1-D logits": ({"logits": FLOATS[0], "label": LABEL}, "logits must be"),
    "ids twice": ({"ranked": RANKED, "label": LABEL, "ids": LABEL}, "ids 1 occurs twice"),
    "ids of others": ({"ranked": RANKED, "label": LABEL, "ids": np.arange(5)}, "ids must be"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arrays_are_named(tmp_path, case):
    arrays, words = WRONG[case]
    with pytest.raises(Wrong, match=words) as caught:
        score_classification(save(tmp_path / "a.npz", **arrays))
    assert "a.npz" in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_torn_or_of_another_kind(tmp_path):
    path = save(tmp_path / "a.npz", ranked=RANKED, label=LABEL)
    good = path.read_bytes()
    for content in (b"", good[:100], good[:-30], good[: len(good) // 2] + good[len(good) // 2 + 9 :], b"PK", b"text"):
        path.write_bytes(content)
        with pytest.raises(Wrong, match="a.npz") as caught:
            score_classification(path)
        assert "\n" not in str(caught.value)
    np.save(tmp_path / "b.npy", RANKED)
    with pytest.raises(Wrong, match="b.npy: has no labels; say --labels"):
        score_classification(tmp_path / "b.npy")
    with pytest.raises(Missing, match="c.npz: no such file"):
        score_classification(tmp_path / "c.npz")
    with pytest.raises(Missing, match="c.npy: no such file; nearest: b.npy"):
        score_classification(tmp_path / "b.npy", tmp_path / "c.npy")


def test_the_front_door(monkeypatch, capsys, tmp_path):
    save(tmp_path / "a.npz", ranked=RANKED, label=LABEL)
    np.save(tmp_path / "ranked.npy", RANKED), np.save(tmp_path / "label.npy", LABEL)
    code, out, _ = call(monkeypatch, capsys, "score", "classification", str(tmp_path / "a.npz"))
    assert code == 0
    files = [str(tmp_path / "ranked.npy"), "--labels", str(tmp_path / "label.npy")]
    assert call(monkeypatch, capsys, "score", "classification", *files) == (0, out, "")
    assert list(json.loads(out)) == ["task", "protocol", "metrics", "counts"]
    code, out, err = call(monkeypatch, capsys, "score", "classification", files[0])
    assert code == 2 and out == "" and err.count("\n") == 1
