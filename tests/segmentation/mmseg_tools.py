"""Shared by the tests of mmsegmentation: drawn pictures, a stock config of a small model, what its logger wrote."""

import json

import numpy as np
from PIL import Image

from tasks.segmentation import mmcv_lite

mmcv_lite.install()

CROP, CLASSES = 48, 4


def pictures(place):
    """A data set in mmsegmentation's folders: four pictures of noise, 60x50 px, masks of four classes."""
    rng = np.random.default_rng(0)
    for part in ("images", "annotations"):
        (place / part / "training").mkdir(parents=True)
    for i in range(4):
        picture = rng.integers(0, 256, (50, 60, 3)).astype(np.uint8)
        Image.fromarray(picture).save(place / "images" / "training" / f"{i}.jpg")
        Image.fromarray(rng.integers(0, CLASSES, (50, 60)).astype(np.uint8)).save(
            place / "annotations" / "training" / f"{i}.png"
        )
    return place


def config(folder, grid):
    from tasks.segmentation.mmseg_backbone import preprocessor

    pipeline = [
        {"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"},
        {"type": "RandomCrop", "crop_size": (CROP, CROP)}, {"type": "PackSegInputs"},
    ]  # fmt: skip
    dataset = {
        "type": "BaseSegDataset", "data_root": str(folder), "pipeline": pipeline,
        "data_prefix": {"img_path": "images/training", "seg_map_path": "annotations/training"},
        "metainfo": {"classes": tuple("abcd")},
    }  # fmt: skip
    head = {
        "type": "FCNHead", "in_channels": 128, "channels": 128, "num_classes": CLASSES, "num_convs": 0,
        "kernel_size": 1, "concat_input": False, "norm_cfg": None, "in_index": 0, "align_corners": False,
        "loss_decode": {"type": "CrossEntropyLoss", "avg_non_ignore": True},
    }  # fmt: skip
    return {
        "default_scope": "mmseg",
        "model": {
            "type": "EncoderDecoder",
            "data_preprocessor": preprocessor("flexivit_nano", CROP),
            "backbone": {"type": "FlexiViT", "name": "flexivit_nano", "grid": grid, "pretrained": False},
            "decode_head": head,
            "train_cfg": {},
            "test_cfg": {"mode": "whole"},
        },
        "train_dataloader": {
            "batch_size": 2, "num_workers": 0, "dataset": dataset,
            "sampler": {"type": "InfiniteSampler", "shuffle": True},
        },
        "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 2},
        "optim_wrapper": {"type": "OptimWrapper", "optimizer": {"type": "SGD", "lr": 0.1}},
        "randomness": {"seed": 0},
        "work_dir": str(folder / "work"),
        "log_level": "WARNING",
    }  # fmt: skip


def whole_pictures(options):
    """A loader of the same pictures uncut and in order, as a validation or test reads them."""
    loader = {**options["train_dataloader"], "batch_size": 1, "sampler": {"type": "DefaultSampler", "shuffle": False}}
    pipeline = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}]
    loader["dataset"] = {**loader["dataset"], "pipeline": pipeline, "test_mode": True}
    return loader


def written(work, pattern):
    """What mmengine's logger wrote in JSON, a line or a file at a time."""
    return [json.loads(line) for path in work.glob(pattern) for line in path.read_text().splitlines() if line]


def of_grids(metrics):
    """`{"grid4x4/mIoU": 1.0, ...}` -> `{"grid4x4": {"mIoU": 1.0, ...}, ...}`; nothing but times is without a grid."""
    split = {}
    for name, value in metrics.items():
        grid, _, metric = name.rpartition("/")
        split.setdefault(grid, {})[metric] = value
    assert set(split.pop("", {})) <= {"time", "data_time", "step"}, metrics
    return split
