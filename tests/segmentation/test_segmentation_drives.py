"""Frames of one drive are no independent samples: they are told apart by name, kept with the counts, and grouped."""

import os

import numpy as np
import pytest
import torch

from benchmarks.report.statistics.jackknife import deal_groups
from tasks import build_task
from tasks.contract import Batch, View
from tasks.data.sets.drives import drives_of
from tasks.segmentation.scoring.meter import SegmentationMeter


def test_drives_are_the_beginnings_of_names_and_blocks_are_successive_frames() -> None:
    names = ["x/b_010_z", "a_000", "a_001", "b_009_z", "odd", "a_002", "a_003"]
    drive = drives_of(names, "[^_]+_")
    groups = {tuple(np.flatnonzero(drive == d)) for d in drive}
    assert groups == {(0, 3), (1, 2, 5, 6), (4,)}
    blocks = drives_of(names, "[^_]+_", 3)
    assert {tuple(np.flatnonzero(blocks == d)) for d in blocks} == {(0, 3), (1, 2, 5), (6,), (4,)}
    city = drives_of(["frankfurt_000000_000294", "frankfurt_000001_000019", "frankfurt_000000_000576"], "[^_]+_[0-9]+_")
    assert city.tolist() == [0, 1, 0]


def test_the_meter_keeps_the_drive_of_each_image() -> None:
    drives = np.array([7, 7, 9, 9])
    meter, view = SegmentationMeter(["a", "b"], drives), View(4)
    batch = Batch(torch.tensor([3, 1]), torch.zeros(2, 3, 4, 4), {})
    meter.update({"counts": torch.ones(2, 3, 2, dtype=torch.int64)}, batch, view, "val")
    meter.merge()
    ((_, _, samples),) = meter.rows()
    assert samples["ids"].tolist() == [1, 3] and samples["drive"].tolist() == [7, 9]


@pytest.mark.skipif("FLEXIVIT_DATA" not in os.environ, reason="needs FLEXIVIT_DATA")
def test_camvid_is_some_thirty_independent_samples_and_not_233(tmp_path) -> None:
    task = build_task("segmentation", os.environ["FLEXIVIT_DATA"], {"data": "camvid11"})
    assert task.card.cluster == "drive"
    drives = task.meter("test").drives
    groups = deal_groups(233, drives)
    assert len(drives) == 233 and groups.units == 25 and np.bincount(drives).max() == 10
    assert not build_task("segmentation", tmp_path, {"data": "scenes"}).card.cluster
