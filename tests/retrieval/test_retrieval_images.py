"""Image-to-image retrieval as a task: labelled folders and parquet, self left out, queries and gallery across grids."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from backbones.contract import Features
from tasks import TaskError, View, build_task
from tasks.retrieval.images.metrics import class_retrieval

REAL = os.environ.get("FLEXIVIT_DATA")


class ColourBackbone(nn.Module):
    """Mean colours of patches, the finer the grid the noisier."""

    embed_dim = 3

    def forward(self, images, grid):
        tokens = nn.functional.adaptive_max_pool2d(images.float() / 255 - 0.5, tuple(grid)).permute(0, 2, 3, 1)
        return Features(tokens.mean((1, 2)), tokens, tokens.new_zeros(len(images), 0, 3))


class Thumbnail(ColourBackbone):
    """The picture at 8 x 8 pixels, whatever the grid."""

    def forward(self, images, grid):
        small = nn.functional.adaptive_avg_pool2d(images.float(), 8).flatten(1)
        return Features(small - small.mean(1, keepdim=True), images[:, :, :1, :1], images[:, :0])


def folders(root, each=5):
    for c, colour in enumerate([(200, 40, 40), (40, 200, 40), (40, 40, 200)]):
        (root / "set" / f"class_{c}").mkdir(parents=True)
        for i in range(each):
            noise = np.random.default_rng(10 * c + i).integers(-60, 55, (16, 16, 3))
            pixels = (np.array(colour) + noise).clip(0, 255).astype("uint8")
            Image.fromarray(pixels).save(root / "set" / f"class_{c}" / f"{i}.png")
    return root


def sweep(task, model, grids, split="test", size=4, limit=None):
    dataset, meter = task.dataset(split), task.meter(split)
    for start in range(0, limit or len(dataset), size):
        indices = range(start, min(start + size, limit or len(dataset)))
        batch = task.collate([(i, *dataset[i]) for i in indices])
        for view in task.views(grids):
            meter.update(task.predict(model, batch, view.grid, None), batch, view, split)
    meter.merge()
    return meter.rows()


def test_rows_within_and_across_grids(tmp_path):
    task = build_task("image_retrieval", root=folders(tmp_path), options={"data": "set/", "image_size": 16})
    model = task.model(ColourBackbone())
    rows = sweep(task, model, [1, (2, 4)])
    assert [r[0] for r in rows] == [View((1, 1)), View((2, 4))]
    dataset = task.dataset("test")
    images = torch.stack([dataset[i][0] for i in range(15)])
    labels = np.array([dataset[i][1] for i in range(15)])
    assert labels.tolist() == sorted(labels.tolist()) and set(labels) == {0, 1, 2}
    coarse, fine = (model(images, g).numpy() for g in ((1, 1), (2, 4)))
    across = class_retrieval(coarse, fine, labels, labels, np.arange(15))[0]
    assert rows[0][1]["R@1_gallery_2x4"] == across["R@1"] and rows[0][1]["mAP@R_gallery_2x4"] == across["mAP@R"]
    hits = class_retrieval(coarse, fine, labels, labels, np.arange(15))[1]["R@1"]
    assert np.array_equal(rows[0][2]["R@1_gallery_2x4"].numpy(), hits) and "R@1_gallery_1x1" not in rows[0][2]
    assert rows[1][1]["R@1"] == class_retrieval(fine, fine, labels, labels, np.arange(15))[0]["R@1"]
    assert rows[1][1]["chance_R@1"] == pytest.approx(4 / 14)
    assert rows[1][2]["AP@R"].mean() == pytest.approx(rows[1][1]["mAP@R"])
    assert not list(model.parameters()) and not model.state_dict()


def test_cross_grid_can_be_left_out_and_mean_pools_the_map(tmp_path):
    options = {"data": "set/", "image_size": 16, "cross_grid": False, "pooling": "mean"}
    task = build_task("image_retrieval", root=folders(tmp_path), options=options)
    rows = sweep(task, task.model(ColourBackbone()), [1, 2])
    assert not [name for _, metrics, _ in rows for name in metrics if "gallery" in name]


def test_what_is_wrong_is_named(tmp_path):
    root = folders(tmp_path, each=1)
    task = build_task("image_retrieval", root=root, options={"data": "set/", "image_size": 16})
    with pytest.raises(TaskError, match="no query has another image of its class"):
        sweep(task, task.model(ColourBackbone()), [1])
    with pytest.raises(TaskError, match="the split is empty"):
        task.meter("test").rows()
    with pytest.raises(TaskError, match="data 'car98': is no data set with classes that is known; nearest: cars98"):
        build_task("image_retrieval", root=root, options={"data": "car98"})
    with pytest.raises(TaskError, match="no pooling 'max'; there are: pooled, mean"):
        build_task("image_retrieval", root=root, options={"pooling": "max"}).model(ColourBackbone())
    assert "no classification/cars98_test" in str(build_task("image_retrieval", root=root).missing()[0])
    (tmp_path / "nothing" / "class").mkdir(parents=True)
    assert "has no pictures" in str(build_task("image_retrieval", root=root, options={"data": "nothing/"}).missing()[0])


@pytest.mark.skipif(not REAL, reason="FLEXIVIT_DATA is not set")
def test_real_cars_even_thumbnails_beat_chance():
    task = build_task("image_retrieval", root=REAL, options={"data": "cars98", "image_size": 24})
    assert task.missing() == [] and len(set(task.labelled("test").labels)) == 98
    rows = sweep(task, task.model(Thumbnail()), [2], size=70)
    # 9 right of 979 others; pose and colour alone tell some car models apart
    assert rows[0][1]["chance_R@1"] == pytest.approx(9 / 979)
    assert 3 * 9 / 979 < rows[0][1]["R@1"] < 0.5


def test_a_smoke_test_keeps_pairs_of_a_class(tmp_path) -> None:
    task = build_task("image_retrieval", folders(tmp_path), {"data": "set/", "image_size": 16})
    assert list(task.smoke("test", 15, 4)) == [0, 1, 5, 6] and list(task.smoke("test", 15, 6)) == [0, 1, 5, 6, 10, 11]
    assert list(task.smoke("test", 15, 15)) == list(range(15))
