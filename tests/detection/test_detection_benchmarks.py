"""The benchmarks of detection training: the switch they use, the chance they compare with, a few of their steps."""

import json

import numpy as np
import pytest
import torch

from benchmarks.experiments.detection_heldout import against_chance, crossed
from benchmarks.experiments.detection_overfit import Whole, handful, overfit, parser
from benchmarks.experiments.exchanged_names import derangement, exchanged, of_run
from benchmarks.store import Row, Store
from tasks import TaskError, build_task
from tasks.detection.boxes import pad_square
from tasks.detection.labels.annotations import read_truth
from tasks.detection.scoring.results import Detections
from tasks.text.towers import CONTEXT, tokenize

NAMES = ("red_ring", "red_disc", "blue_ring", "blue_disc")


def test_whole_pictures_are_neither_cropped_nor_flipped(tmp_path):
    options = {"data": handful(tmp_path, 3), "side": 120, "text": "tiny", "mosaics": [1, 0, 0]}
    whole, real = Whole(tmp_path, options).dataset("train"), build_task("detection", tmp_path, options).dataset("train")
    assert len(whole) == 3
    for i in range(3):
        image, targets = whole.sample(i, torch.Generator().manual_seed(7))
        tile = whole.tile(i)
        assert torch.equal(image, pad_square(tile.image, 120, 0.5)[0])
        centres = (tile.boxes[:, :2] + tile.boxes[:, 2:]) / 240
        assert torch.allclose(targets["boxes"][:, :2].sort(0).values, centres.sort(0).values, atol=1e-6)
        assert not torch.equal(image, real.sample(i, torch.Generator().manual_seed(7))[0])


def test_texts_that_come_again_have_the_tokenizers_rows():
    from open_clip.tokenizer import SimpleTokenizer

    texts = ["a red ring", "a photo of a cup", " ".join(["long"] * 40), "a red ring"]
    official = SimpleTokenizer(context_length=CONTEXT)(texts)
    assert torch.equal(tokenize(texts), official) and torch.equal(tokenize(texts), official)
    assert torch.equal(tokenize(["", "  ", "cup"])[:2], torch.zeros(2, CONTEXT, dtype=torch.long))
    assert tokenize([]).shape == (0, CONTEXT)


def labels(things):
    """Two pictures a category, a box each; the first two categories are held out."""
    images, annotations = [], []
    for i, category in enumerate(things, 1):
        negatives = [c for c in range(1, 5) if c != category]
        images.append({"id": i, "file_name": "-", "height": 100, "width": 100, "neg_category_ids": negatives,
                       "not_exhaustive_category_ids": []})  # fmt: skip
        annotations.append({"id": i, "image_id": i, "category_id": category, "bbox": [10, 10, 30, 30], "area": 900.0})
    categories = [{"id": k, "name": n, "frequency": "r" if k in (1, 4) else "c"} for k, n in enumerate(NAMES, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def detections(asked):
    """`asked[k][i]`: the score that query k gives to the box of image i + 1."""
    rows = [(i, k, s) for k, scores in asked.items() for i, s in enumerate(scores, 1)]
    box = np.tile([10.0, 10.0, 30.0, 30.0], (len(rows), 1))
    return Detections(*(np.array(c) for c in zip(*rows, strict=True)), box)


def test_chance_is_what_other_names_find():
    truth, held_out = read_truth(labels([1, 1, 2, 3, 4, 4])), np.array([0, 3])
    perfect = {1: [1, 1, 0, 0, 0, 0], 2: [0, 0, 1, 0, 0, 0], 3: [0, 0, 0, 1, 0, 0], 4: [0, 0, 0, 0, 1, 1]}
    found = against_chance(crossed(detections(perfect), truth, held_out), truth.names, held_out)
    assert found["own"] == pytest.approx(1) and found["as_good"] == 0.5  # one of the two permutations
    # exchanged: two misses before hits at once (1/2 at every recall), or with two more misses between (1/3)
    assert found["permuted"] == pytest.approx((1 + (1 / 2 + 1 / 3) / 2) / 2)
    # every query finds every thing alike: no name is better than another
    blind = {k: [0.5] * 6 for k in range(1, 5)}
    found = against_chance(crossed(detections(blind), truth, held_out), truth.names, held_out)
    assert found["as_good"] == 1 and found["own"] == pytest.approx(found["permuted"])
    assert found["same_colour"] == found["same_shape"] == pytest.approx(found["own"])
    # only the colour is read: the query of the other red thing does as well
    colour = {1: [1, 1, 1, 0, 0, 0], 2: [1, 1, 1, 0, 0, 0], 3: [0, 0, 0, 1, 1, 1], 4: [0, 0, 0, 1, 1, 1]}
    found = against_chance(crossed(detections(colour), truth, held_out), truth.names, held_out)
    assert found["own"] == found["same_colour"] > found["same_shape"]


def test_derangements_leave_no_name_where_it_was():
    random = np.random.default_rng(0)
    drawn = {tuple(derangement(4, random).tolist()) for _ in range(200)}
    assert len(drawn) == 9 and not any(p == i for order in drawn for i, p in enumerate(order))  # 9 = !4


def test_exchanged_names_find_what_cannot_be_told_apart():
    truth = read_truth(labels([1, 1, 2, 3, 4, 4]))
    perfect = {1: [1, 1, 0, 0, 0, 0], 2: [0, 0, 1, 0, 0, 0], 3: [0, 0, 0, 1, 0, 0], 4: [0, 0, 0, 0, 1, 1]}
    own, others = exchanged(detections(perfect), truth)["AP50"]
    assert own == pytest.approx(1) and max(others) < 0.6 and len(others) == 20
    blind = {k: [0.5] * 6 for k in range(1, 5)}  # as good under any name
    for own, others in exchanged(detections(blind), truth).values():
        assert others == pytest.approx([own] * 20) and own > 0


def test_exchanged_names_of_a_run_are_those_of_its_rows(tmp_path):
    root, store = tmp_path / "data", Store(tmp_path / "run")
    options = {"data": handful(root, 4), "side": 120, "text": "tiny"}
    task = build_task("detection", root, options)
    truth, meter = task.truth("val"), task.meter("val")
    count = len(truth.image_ids)
    # each box of each picture, found under its own name
    most = int(np.bincount(truth.image).max())
    records = {"ids": torch.arange(count), "score": torch.zeros(count, most), "box": torch.ones(count, most, 4)}
    records["category"] = torch.zeros(count, most, dtype=torch.int32)
    for i in range(count):
        own = truth.image == i
        records["score"][i, : own.sum()] = 1.0
        records["category"][i, : own.sum()] = torch.from_numpy(truth.category[own]).int()
        records["box"][i, : own.sum()] = torch.from_numpy(truth.box[own]).float()
    cell = {"task": "detection", "backbone": "flexivit_nano", "train_grid": 8, "seed": 0, "label": "cell"}
    row = Row(
        **cell, options=options, split="val", eval_grid=8, row_key="ab", metrics={"AP50": 1.0},
        data_identity={"val": task.fingerprint("val")}, samples=store.save_samples("ab", records),
    )  # fmt: skip
    store.append([row])
    assert meter.detections(records).score.max() == 1
    lines = of_run(tmp_path / "run", root, "val", draws=3)
    assert len(lines) == 3 and lines[2].startswith("| flexivit_nano | 8 | 8 | 100.00 |")
    with pytest.raises(TaskError, match="no detection row on split 'real'"):
        of_run(tmp_path / "run", root, "real", draws=3)
    (tmp_path / "run" / "samples" / "ab.npz").unlink()
    with pytest.warns(UserWarning), pytest.raises(TaskError, match="the samples of 'cell' at grid 8 are gone"):
        of_run(tmp_path / "run", root, "val", draws=3)


def test_a_few_steps_are_the_whole_way():
    arguments = parser("detection_overfit", "A few steps.", steps=4, augment=False)
    recipe = arguments.parse_args(["--grid", "4", "--batch", "2"])
    found = overfit(2, recipe)
    assert found["before"].keys() == found["after"].keys() >= {"AP", "AP50"} and not found["augment"]
    assert len(set(found["losses"])) == 4 and np.isfinite(found["losses"]).all() and found["seconds"] > 0
    assert json.dumps(found)
