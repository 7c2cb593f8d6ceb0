"""FlexiViT in a stock mmseg config, trained by mmengine's own Runner."""

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.segmentation import mmcv_lite

mmcv_lite.install()

CROP, CLASSES = 48, 4


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for part in ("images", "annotations"):
        (tmp_path / part / "training").mkdir(parents=True)
    for i in range(4):
        picture = rng.integers(0, 256, (50, 60, 3)).astype(np.uint8)
        Image.fromarray(picture).save(tmp_path / "images" / "training" / f"{i}.jpg")
        Image.fromarray(rng.integers(0, CLASSES, (50, 60)).astype(np.uint8)).save(
            tmp_path / "annotations" / "training" / f"{i}.png"
        )
    return tmp_path


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
        "work_dir": str(folder / "work"),
        "log_level": "WARNING",
    }  # fmt: skip


def test_a_stock_config_trains_with_mmengines_runner(folder):
    from mmengine.config import Config
    from mmengine.runner import Runner

    runner = Runner.from_cfg(Config(config(folder, grid=6)))
    before = {name: value.clone() for name, value in runner.model.state_dict().items()}
    runner.train()
    assert runner.iter == 2
    after = runner.model.state_dict()
    for name in ("decode_head.conv_seg.weight", "backbone.encoder.trunk.patch_embed.proj.weight"):
        assert after[name].isfinite().all() and not torch.equal(before[name], after[name]), name
    # the trained model runs at any other grid
    model = runner.model.eval()
    images = torch.randn(1, 3, CROP, CROP)
    for grid in (4, 8, (6, 12)):
        model.backbone.grid = grid
        assert model.backbone(images)[0].shape[-2:] == ((grid, grid) if isinstance(grid, int) else grid)
        assert model(images).shape == (1, CLASSES, *((grid, grid) if isinstance(grid, int) else grid))


def test_the_map_is_that_of_the_backbone_and_patch_follows_the_image():
    from mmseg.registry import MODELS

    from tasks.segmentation import mmseg_backbone  # noqa: F401

    model = MODELS.build({"type": "FlexiViT", "name": "flexivit_nano", "patch": 8, "pretrained": False}).eval()
    images = torch.randn(1, 3, 48, 64)
    with torch.no_grad():
        (got,) = model(images)
        want = model.encoder(images, (6, 8)).map
    assert got.shape == (1, model.embed_dim, 6, 8)
    torch.testing.assert_close(got, want.permute(0, 3, 1, 2))
    with pytest.raises(ValueError, match="patch 8 does not divide images of 50x48"):
        model(torch.randn(1, 3, 48, 50))


def test_preprocessor_normalises_as_the_backbone_does():
    from mmseg.registry import MODELS

    from backbones import build_backbone
    from tasks.segmentation.mmseg_backbone import preprocessor

    picture = torch.randint(0, 256, (3, CROP, CROP), dtype=torch.uint8)  # BGR, as mmseg reads it
    made = MODELS.build(preprocessor("flexivit_nano", CROP))
    got = made({"inputs": [picture], "data_samples": None}, training=False)["inputs"]
    encoder = build_backbone("flexivit_nano", pretrained=False)
    torch.testing.assert_close(got, encoder.normalise(picture.flip(0)[None]), atol=1e-5, rtol=1e-5)


def test_grid_or_patch_is_needed():
    from tasks.segmentation.mmseg_backbone import FlexiViT

    with pytest.raises(ValueError, match="either grid or patch"):
        FlexiViT("flexivit_nano")


def test_ops_that_are_not_compiled_say_so_when_called():
    import mmcv
    from mmcv.ops import nms  # noqa: F401

    if mmcv_lite.compiled():
        pytest.skip("a compiled mmcv is installed")
    assert mmcv.__version__
    from mmcv import _ext

    with pytest.raises(NotImplementedError, match="mmcv op 'nms' needs a compiled mmcv"):
        _ext.nms(torch.zeros(1, 4))
