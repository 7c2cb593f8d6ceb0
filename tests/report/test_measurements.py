"""Replicates of real tasks: sums and weights are one metric, and that of the row."""

import numpy as np
import pytest
import torch

from benchmarks.report.answers import measurements
from benchmarks.report.answers.questions import entries
from benchmarks.report.build import read_report
from benchmarks.report.statistics.jackknife import deal_groups, replicates_of_sums, replicates_of_weights
from benchmarks.store import Store
from tasks import build_task
from tasks.classification.adapter import Classification
from tasks.contract.task import sums_of_mean
from tasks.segmentation.scoring.confusion import chance_iou, scores


def counts(samples: int, classes: int = 4) -> np.ndarray:
    """[N, 3, C] of intersections, predicted and labelled pixels."""
    rng = np.random.default_rng(0)
    both = rng.integers(0, 40, (samples, classes))
    return np.stack([both, both + rng.integers(0, 40, both.shape), both + rng.integers(0, 40, both.shape)], 1)


RANKS = np.random.default_rng(1).integers(0, 4, (37, 5))
SAMPLES = {
    "classification": {"ranked": np.arange(37)[:, None] % 3, "label": np.arange(37) % 2},
    "segmentation": {"counts": counts(37)},
    "retrieval": {"t2i_rank": RANKS},
    "image_retrieval": {"R@1": np.where(np.arange(37) % 5 == 0, np.nan, np.arange(37) % 2)},
}
VALUES = {
    "classification": np.mean(np.arange(37) % 3 == np.arange(37) % 2),
    "segmentation": scores(torch.from_numpy(counts(37).sum(0)))["mIoU"],
    "retrieval": (RANKS == 1).sum() / (RANKS > 0).sum(),
    "image_retrieval": np.nanmean(SAMPLES["image_retrieval"]["R@1"]),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_sums_give_what_weights_give(name, tmp_path) -> None:
    task = build_task(name, tmp_path, {"data": "scenes"})
    samples, groups = SAMPLES[name], deal_groups(37)
    quick = replicates_of_sums(*task.sums(samples), groups)
    slow = replicates_of_weights(lambda weights: task.resampled(samples, weights), groups)
    assert quick.whole == pytest.approx(VALUES[name]) == pytest.approx(slow.whole)
    np.testing.assert_allclose(quick.without, slow.without)
    np.testing.assert_allclose(quick.halves, slow.halves)
    twice = np.random.default_rng(2).integers(0, 3, (4, 37)).astype(float)
    repeated = [{k: np.repeat(v, w.astype(int), axis=0) for k, v in samples.items()} for w in twice]
    again = [task.resampled(one, np.ones((1, len(next(iter(one.values())))))) for one in repeated]
    np.testing.assert_allclose(task.resampled(samples, twice), np.concatenate(again))


def test_a_mean_leaves_out_what_is_not_known() -> None:
    terms, metric = sums_of_mean(np.array([1.0, 0.0, np.nan]))
    assert metric(np.array([[1.0, 1, 1], [2, 0, 1]]) @ terms).tolist() == [0.5, 1.0]


def test_the_chance_of_iou_is_the_best_constant_map() -> None:
    labelled = torch.tensor([60, 30, 10, 0])
    constant = torch.stack([torch.tensor([60, 0, 0, 0]), torch.tensor([100, 0, 0, 0]), labelled])
    assert chance_iou(constant) == pytest.approx(0.2) == pytest.approx(scores(constant)["mIoU"])


class Torn(Classification):
    """A plug-in whose own code fails."""

    fails = "sums"

    def sums(self, samples):
        if self.fails == "sums":
            raise AttributeError("a plug-in may raise anything")
        return super().sums(samples)

    def __init__(self, *args, **more):
        if self.fails == "init":
            raise RuntimeError("not even made")
        super().__init__(*args, **more)


@pytest.mark.parametrize("fails, told", [
    ("sums", "its per-sample values are not those of toy: AttributeError: a plug-in may raise anything"),
    ("init", "RuntimeError: not even made"),
])  # fmt: skip
def test_a_plug_in_that_raises_costs_its_own_intervals_alone(tmp_path, monkeypatch, fails, told) -> None:
    monkeypatch.setattr(Torn, "fails", fails)

    def built(name, *args):
        return Torn(*args) if name == "toy" else build_task(name, *args)

    monkeypatch.setattr(measurements, "build_task", built)
    store = Store(tmp_path)
    samples = store.save_samples("ab", {"ids": np.arange(37), **SAMPLES["classification"]})
    good = {"backbone": "tiny", "split": "test", "eval_grid": 4, "metric": "top1", "samples": samples,
            "metrics": {"top1": float(VALUES["classification"])}, "options": {"data": "scenes"}}  # fmt: skip
    store.append([{**good, "task": "toy", "row_key": "ab"}, {**good, "task": "classification", "row_key": "cd"}])
    known = measurements.Measurements()
    by_task = {e.row.task: e for e in entries([store])}
    assert known.why_not(by_task["toy"]) == told and known.of(by_task["classification"]) is not None
    assert "toy" in read_report([store]).markdown()
