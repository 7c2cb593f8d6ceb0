"""The segmentation task as the runner sees it."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from backbones.contract import Features
from tasks import TaskError, View, build_task
from tasks.contract import Batch
from tasks.segmentation.scoring.meter import SegmentationMeter

CLASSES, CROP = 4, 24
GRIDS = [(4, 4), (6, 6), (8, 8), (12, 12)]


class ColourEncoder(nn.Module):
    """The mean colour of each cell, projected: enough to learn labels that are colours."""

    def __init__(self, width=32):
        super().__init__()
        self.embed_dim = width
        self.project = nn.Linear(3, width)
        self.seen = []

    def normalise(self, images):
        return images if images.is_floating_point() else (images.float() - 100) / 60

    def forward(self, images, grid):
        self.seen.append(tuple(images.shape))
        cells = F.adaptive_avg_pool2d(self.normalise(images), grid).permute(0, 2, 3, 1)
        tokens = F.gelu(self.project(cells))
        return Features(pooled=tokens.mean((1, 2)), map=tokens, prefix=tokens.flatten(1, 2)[:, :0])


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    base = tmp_path / "toy"
    for folder, count in (("training", 8), ("validation", 4)):
        for part in ("images", "annotations"):
            (base / part / folder).mkdir(parents=True)
        for i in range(count):
            height, width = 30 + 3 * i, 50 - i
            label = np.kron(rng.integers(0, CLASSES, (8, 8)), np.ones((8, 8)))[:height, :width].astype(np.uint8)
            picture = np.stack([label * 60, 200 - label * 50, rng.integers(0, 40, label.shape)], 2).astype(np.uint8)
            Image.fromarray(picture).save(base / "images" / folder / f"{i}.jpg", quality=95)
            label[:2] = 255
            Image.fromarray(label).save(base / "annotations" / folder / f"{i}.png")
    meta = {"class_names": list("abcd"), "ignore_label": 255, "reduce_zero_label": False}
    (base / "meta.json").write_text(json.dumps(meta))
    return tmp_path


@pytest.fixture
def task(root):
    torch.manual_seed(0)
    return build_task("segmentation", root=root, options={"data": "toy", "crop": CROP, "stride": 16})


def whole(task, split):
    dataset = task.dataset(split)
    return task.collate([(i, *dataset[i]) for i in range(len(dataset))])


def test_batches_can_be_cut_and_moved(task):
    batch = whole(task, "val")
    part = batch[1:3].to("cpu")
    assert len(batch) == 4 and len(part) == 2 and part.ids.tolist() == [1, 2]
    assert [i.shape[1:] for i in part.images] == [t.shape for t in part.targets["label"]]
    crops = whole(task, "train")
    assert crops.images.shape == (len(crops), 3, CROP, CROP) and crops.targets["label"].dtype == torch.uint8


def test_training_lowers_the_loss_and_finds_the_classes(task):
    model = task.model(ColourEncoder())
    batch, val = whole(task, "train"), whole(task, "val")
    optimizer = torch.optim.Adam(model.parameters(), 0.02)

    def miou():
        meter = task.meter("val")
        for view in task.views(GRIDS):
            meter.update(task.predict(model, val, view.grid, None), val, view, "val")
        return {view.grid: metrics["mIoU"] for view, metrics, _ in meter.rows()}

    before, losses = miou(), []
    for step in range(40):
        out = task.loss(model, batch, GRIDS[step % 4])
        assert int(out["count"]) == int((batch.targets["label"] != 255).sum())
        optimizer.zero_grad()
        out["loss"].backward()
        optimizer.step()
        losses.append(out["loss"].item())
    after = miou()
    assert losses[-1] < 0.6 * losses[0]
    assert all(after[grid] > max(0.3, before[grid]) for grid in GRIDS), (before, after)
    assert after[12, 12] > after[4, 4]


def test_micro_batches_combine_by_count(task):
    model, batch = task.model(ColourEncoder()), whole(task, "train")
    whole_loss = task.loss(model, batch, (6, 6))
    parts = [task.loss(model, batch[i : i + 3], (6, 6)) for i in range(0, len(batch), 3)]
    mean = sum(p["loss"] * p["count"] for p in parts) / sum(p["count"] for p in parts)
    torch.testing.assert_close(mean, whole_loss["loss"])


def test_what_is_outside_a_small_picture_does_not_matter(task):
    model = task.model(ColourEncoder())
    image, label = torch.randint(0, 256, (3, CROP, CROP), dtype=torch.uint8), torch.zeros(CROP, CROP, dtype=torch.uint8)
    label[10:], label[:, 15:] = 255, 255
    other = image.clone()
    other[:, 10:], other[:, :, 15:] = 77, 3
    target = {"label": label, "size": torch.tensor([10, 15])}
    losses = [task.loss(model, task.collate([(0, x, target)]), (4, 4))["loss"] for x in (image, other)]
    assert torch.equal(*losses)


def test_one_pass_equals_separate_passes_and_batches(task):
    model, batch = task.model(ColourEncoder()).eval(), whole(task, "val")
    views = task.views(GRIDS)
    together = [task.predict(model, batch, view.grid, None)["counts"] for view in views]
    for view, counts in zip(views, together, strict=True):
        assert torch.equal(counts, task.predict(model, batch, view.grid, None)["counts"])
        single = torch.cat(
            [task.predict(model, batch[i : i + 1], view.grid, None)["counts"] for i in range(len(batch))]
        )
        # float32 sums may differ in the last bit with the batch, and an argmax with them: a pixel or two
        assert (counts - single).abs().max() <= 2
        labelled = torch.stack([(t != 255).sum() for t in batch.targets["label"]])
        assert torch.equal(counts[:, 2].sum(1), labelled) and torch.equal(counts[:, 1].sum(1), labelled)


def test_views_choose_grid_and_options(task):
    encoder = ColourEncoder()
    model, batch = task.model(encoder).eval(), whole(task, "val")[:1]
    encoder.seen.clear()
    task.predict(model, batch, (6, 6), None)
    shape, *rest = encoder.seen
    assert shape[1:] == (3, CROP, CROP) and not rest  # all windows of the batch at once
    encoder.seen.clear()
    view = View((6, 6), options=(("flip", True), ("scales", (1.0, 2.0)), ("short_side", 24)))
    with task.viewing(model, view) as own:
        counts = own.predict(model, batch, view.grid, None)["counts"]
    assert len(encoder.seen) == 4 and counts[0, 1].sum() == (batch.targets["label"][0] != 255).sum()


def test_rows_and_merge(task):
    meter = SegmentationMeter(["a", "b"])
    counts = torch.tensor([[[3, 0], [4, 0], [3, 1]], [[1, 2], [1, 3], [2, 2]]])
    view = View((4, 4))
    meter.update({"counts": counts.flip(0)}, Batch(torch.tensor([5, 2]), torch.zeros(2)), view, "val")
    meter.update({"counts": counts[:1]}, Batch(torch.tensor([2]), torch.zeros(1)), view, "val")  # seen twice
    meter.merge()
    ((got, metrics, values),) = meter.rows()
    assert got == view and values["ids"].tolist() == [2, 5] and torch.equal(values["counts"], counts)
    # a: 4 / (5 + 5 - 4), b: 2 / (3 + 3 - 2)
    assert metrics == pytest.approx(
        {
            "IoU/a": 4 / 6,
            "IoU/b": 1 / 2,
            "mIoU": 7 / 12,
            "mAcc": (4 / 5 + 2 / 3) / 2,
            "aAcc": 6 / 8,
            "chance_mIoU": 5 / 8 / 2,
        }  # fmt: skip
    )


def test_the_task_knows_its_data(task, root):
    assert task.missing() == [] and task.classes == tuple("abcd") and task.card.image_size == CROP
    before = {split: task.fingerprint(split) for split in ("train", "val")}
    (root / "toy" / "images" / "validation" / "0.jpg").write_bytes(b"other")
    after = build_task("segmentation", root=root, options={"data": "toy", "crop": CROP})
    assert after.fingerprint("val") != before["val"] and after.fingerprint("train") == before["train"]
    absent = build_task("segmentation", root=root)
    assert absent.card.image_size == 480 and "get it from http" in str(absent.missing()[0])
    assert build_task("segmentation", root=root, options={"data": "voc21"}).card.image_size == 240


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 500}, r"stride 500 .* must be 1\.\.480"),
        ({"scales": [1.0, 0]}, "scales"),
        ({"short_side": -1}, "short_side -1"),
        ({"crop": -240}, "crop -240"),
        ({"hed": "linear"}, "no option 'hed'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(TaskError, match=message):
        build_task("segmentation", options=options)


def test_panels_show_image_truth_and_predictions(task, tmp_path):
    from tasks.segmentation.panels import coloured, palette, panel

    assert len({tuple(c) for c in palette()[:255].tolist()}) == 255
    assert palette()[[0, 1, 15]].tolist() == [[0, 0, 0], [128, 0, 0], [192, 128, 128]]  # Pascal VOC's own
    model, batch = task.model(ColourEncoder()).eval(), whole(task, "val")[:1]
    predictions = {f"grid {g[0]}": task.labels(model, batch, g)[0] for g in GRIDS[:2]}
    image, truth = batch.images[0], batch.targets["label"][0]
    panel(image, truth, predictions).save(tmp_path / "panel.png")
    sheet = np.array(Image.open(tmp_path / "panel.png"))
    height, width = truth.shape
    assert sheet.shape == (height + 14, 4 * width, 3)
    assert (sheet[14:, :width] == image.permute(1, 2, 0).numpy()).all()
    assert (sheet[14:, 3 * width :] == coloured(predictions["grid 6"])).all()


def test_knowing_the_task_does_not_import_mmseg():
    code = "import sys; from tasks import build_task; build_task('segmentation'); print('mmseg' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
