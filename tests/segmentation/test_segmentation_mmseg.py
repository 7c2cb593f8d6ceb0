"""FlexiViT in a stock mmseg config, trained by mmengine's own Runner."""

import os
import re
import subprocess
import sys
from pathlib import Path

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


def built(**more):
    from mmseg.registry import MODELS

    from tasks.segmentation import mmseg_backbone  # noqa: F401

    return MODELS.build({"type": "FlexiViT", "name": "flexivit_nano", "grid": 6, **more})


def test_maps_of_several_blocks_are_those_of_the_encoder():
    model, images = built(out_indices=(0, 2, -1)).eval(), torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        first, third, last = model(images)
        features = model.encoder(images, 6, taps=(0, 2))
    torch.testing.assert_close(first, features.taps[0].permute(0, 3, 1, 2))
    torch.testing.assert_close(third, features.taps[2].permute(0, 3, 1, 2))
    torch.testing.assert_close(last, features.map.permute(0, 3, 1, 2))
    with pytest.raises(IndexError, match="no block 6; flexivit_nano has 6"):
        built(out_indices=(6,))


@pytest.mark.parametrize("stages", [-1, 0, 2])
def test_frozen_stages_get_no_gradient_and_stay_in_evaluation(stages):
    model = built(frozen_stages=stages).train()
    model(torch.randn(1, 3, 48, 48))[0].sum().backward()
    trunk = model.encoder.trunk
    got = {n for n, p in model.encoder.trunk.named_parameters() if p.grad is not None}
    frozen = {f"blocks.{i}." for i in range(max(0, stages))}
    assert ("pos_embed" in got) == ("patch_embed.proj.weight" in got) == (stages < 0)
    assert {n for n in dict(trunk.named_parameters()) if n.startswith("blocks.")} - got == {
        n for n in dict(trunk.named_parameters()) if n.startswith(tuple(frozen or ("none",)))
    }
    assert [b.training for b in trunk.blocks] == [i >= stages for i in range(6)]
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)  # or several processes would hang
    with pytest.raises(ValueError, match="frozen_stages 7 is not one of -1 to 6"):
        built(frozen_stages=7)


def test_a_checkpoint_names_each_tensor_once_and_loads_where_it_was():
    model, other = built(), built(pretrained=False)
    state = model.state_dict()
    assert state and all(name.startswith("encoder.") for name in state)
    assert not other.load_state_dict(state).missing_keys
    images = torch.randn(1, 3, 48, 48)
    assert torch.equal(model.eval()(images)[0], other.eval()(images)[0])
    checked, plain = built(with_cp=True).train(), built().train()
    for each in (checked, plain):
        each(images)[0].square().sum().backward()
    torch.testing.assert_close(checked.encoder.base_kernel.grad, plain.encoder.base_kernel.grad)


def test_layer_decay_of_mmseg_reads_the_depth(folder):
    import mmseg.engine  # noqa: F401
    from mmengine.optim import build_optim_wrapper

    from tasks.segmentation import mmseg_backbone  # noqa: F401

    model = torch.nn.Module()
    model.backbone, model.decode_head = built(), torch.nn.Linear(2, 2)
    wrapper = build_optim_wrapper(
        model,
        {
            "type": "OptimWrapper", "constructor": "LearningRateDecayOptimizerConstructor",
            "paramwise_cfg": {"num_layers": 6, "decay_rate": 0.5, "decay_type": "layer_wise"},
            "optimizer": {"type": "AdamW", "lr": 1.0},
        },
    )  # fmt: skip
    rate = {id(p): g["lr"] for g in wrapper.optimizer.param_groups for p in g["params"]}
    trunk = model.backbone.encoder.trunk
    assert rate[id(trunk.patch_embed.proj.weight)] == rate[id(trunk.pos_embed)] == rate[id(trunk.cls_token)] == 0.5**7
    assert [rate[id(b.mlp.fc1.weight)] for b in trunk.blocks] == [0.5 ** (6 - i) for i in range(6)]
    assert rate[id(trunk.norm.weight)] == rate[id(model.decode_head.weight)] == 1


def test_grids_change_in_training_and_several_are_tested(folder):
    from mmengine.config import Config
    from mmengine.runner import Runner

    from backbones import build_backbone
    from tasks.segmentation.mmseg_backbone import FlexiViT

    whole = config(folder, grid=6)
    tested = {**whole["train_dataloader"], "batch_size": 1, "sampler": {"type": "DefaultSampler", "shuffle": False}}
    pipeline = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}]
    tested["dataset"] = {**tested["dataset"], "pipeline": pipeline, "test_mode": True}
    whole["model"]["test_cfg"] = {"mode": "slide", "crop_size": (CROP, CROP), "stride": (24, 24)}
    whole |= {
        "default_hooks": {"checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": 2}},
        "custom_hooks": [{"type": "GridScheduleHook", "schedule": "curriculum:4,8"}],
        "test_dataloader": tested, "test_evaluator": {"type": "IoUMetric", "iou_metrics": ["mIoU"]},
        "test_cfg": {"type": "GridTestLoop", "grids": [4, "6x8"]},
    }  # fmt: skip
    runner, seen = Runner.from_cfg(Config(whole)), []
    runner.model.backbone.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    runner.train()
    assert seen == [(4, 4), (8, 8)] and runner.model.backbone.grid == 6 and isinstance(runner.model.backbone, FlexiViT)
    metrics = runner.test()
    assert set(seen[2:]) == {(4, 4), (6, 8)} and {"grid4x4/mIoU", "grid6x8/mIoU"} <= set(metrics)
    assert runner.model.backbone.grid == 6
    told = "".join(path.read_text() for path in (folder / "work").glob("*/*.json"))
    assert "grid4x4/mIoU" in told and "grid6x8/mIoU" in told
    # as tools/test.py does: another runner, and the checkpoint that mmengine wrote, its log of losses included
    saved = folder / "work" / "iter_2.pth"
    again = Runner.from_cfg(Config({**whole, "load_from": str(saved), "experiment_name": "again"}))
    assert again.test() == metrics
    encoder, trained = build_backbone(str(saved), heads=4), again.model.backbone.encoder
    assert encoder.embed_dim == 128 and torch.equal(encoder.base_kernel, trained.base_kernel)
    whole["train_cfg"] = {**whole["train_cfg"], "max_iters": 3}
    more = Runner.from_cfg(Config({**whole, "load_from": str(saved), "resume": True, "experiment_name": "more"}))
    more.train()
    assert more.iter == 3


def test_validation_while_grids_change_is_at_its_own_grids(folder):
    """A schedule puts the backbone's grid back before validation, not in its midst; the best is kept by one grid."""
    from mmengine.config import Config
    from mmengine.runner import Runner

    whole = config(folder, grid=6)
    seen: list = []
    loader = {**whole["train_dataloader"], "sampler": {"type": "DefaultSampler", "shuffle": False}}
    best = {"type": "CheckpointHook", "by_epoch": False, "interval": 2, "save_best": "grid8x8/mIoU"}
    whole |= {
        "custom_hooks": [{"type": "GridScheduleHook", "schedule": "curriculum:4,8"}],
        "default_hooks": {"checkpoint": best},
        "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 2, "val_interval": 2},
        "val_dataloader": loader, "val_evaluator": {"type": "IoUMetric"},
        "val_cfg": {"type": "GridValLoop", "grids": [3, 8]},
    }  # fmt: skip
    runner = Runner.from_cfg(Config(whole))
    runner.model.backbone.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    runner.train()
    assert seen == [(4, 4), (8, 8), (3, 3), (3, 3), (8, 8), (8, 8)]
    assert list((folder / "work").glob("best_*"))


class Evil:
    def __reduce__(self):
        return print, ("run",)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path, capsys):
    import pickle

    from mmengine.runner.checkpoint import CheckpointLoader

    from tasks.segmentation import mmseg_backbone  # noqa: F401

    torch.save({"state_dict": {}, "hook": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(pickle.UnpicklingError, match="print"):
        CheckpointLoader.load_checkpoint(str(tmp_path / "evil.pth"), "cpu")
    assert "run" not in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        CheckpointLoader.load_checkpoint(str(tmp_path / "none.pth"), "cpu")


def test_pictures_that_a_grid_does_not_divide(folder):
    with pytest.raises(ValueError, match="grid 6x6 does not divide images of 50x48 px; .*mode='slide'"):
        built()(torch.randn(1, 3, 48, 50))
    # whole pictures of any size, padded to multiples of the patch
    from mmengine.config import Config
    from mmengine.runner import Runner

    whole = config(folder, grid=None)
    tested = {**whole["train_dataloader"], "batch_size": 1, "sampler": {"type": "DefaultSampler", "shuffle": False}}
    pipeline = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}]
    tested["dataset"] = {**tested["dataset"], "pipeline": pipeline, "test_mode": True}
    del whole["model"]["backbone"]["grid"], whole["train_dataloader"], whole["train_cfg"], whole["optim_wrapper"]
    whole["model"]["backbone"]["patch"] = 12
    whole["model"]["data_preprocessor"] = {
        "type": "FlexiViTPreprocessor", "name": "flexivit_nano", "size": CROP, "test_cfg": {"size_divisor": 12},
    }  # fmt: skip
    whole |= {"test_dataloader": tested, "test_evaluator": {"type": "IoUMetric"}, "test_cfg": {"type": "TestLoop"}}
    assert "mIoU" in Runner.from_cfg(Config(whole)).test()


@pytest.mark.slow  # two processes, windows of 512 px
def test_the_documented_config_by_mmsegs_own_tools(tmp_path):
    """`tools/train.py` and `tools/test.py` of the installed mmseg, with the config as documented."""
    import mmseg

    rng = np.random.default_rng(0)
    for part in ("training", "validation"):
        for kind, shape, top in (("images", (64, 80, 3), 256), ("annotations", (64, 80), 151)):
            place = tmp_path / "ade" / kind / part
            place.mkdir(parents=True)
            drawn = rng.integers(0, top, shape).astype(np.uint8)
            Image.fromarray(drawn).save(place / ("0.jpg" if kind == "images" else "0.png"))
    (tmp_path / "flexivit_upernet.py").write_text(SNIPPETS[1])
    options = ["train_cfg.max_iters=2", "train_dataloader.batch_size=2", "default_hooks.checkpoint.interval=2"]
    for part in ("train", "val", "test"):
        loader = f"{part}_dataloader"
        options += [f"{loader}.num_workers=0", f"{loader}.persistent_workers=False"]
        options += [f"{loader}.dataset.data_root={tmp_path / 'ade'}"]
    tools = Path(mmseg.__file__).parent / ".mim" / "tools"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    work = ["--work-dir", str(tmp_path / "work"), "--cfg-options", *options]
    for words in (["train.py", "flexivit_upernet.py"], ["test.py", "flexivit_upernet.py", "work/iter_2.pth"]):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", str(tools / words[0]), *words[1:], *work], capture_output=True, text=True,
            cwd=tmp_path, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
    scalars = "".join(p.read_text() for p in (tmp_path / "work").glob("*/*.json"))
    assert '"mIoU"' in scalars


SNIPPETS = re.findall(
    r"```python\n(.*?)```", (Path(__file__).parents[2] / "docs" / "mmsegmentation.md").read_text(encoding="utf-8"), re.S
)


@pytest.mark.parametrize("snippet", SNIPPETS[:2], ids=["without _base_", "with mmseg::"])
def test_configs_of_the_documentation_are_read_and_run(tmp_path, snippet):
    """In a fresh interpreter, as mmseg's own tools read them: nothing of this package is imported before."""
    (tmp_path / "pasted.py").write_text(snippet)
    code = (
        "import sys, torch; from mmengine.config import Config; c = Config.fromfile(sys.argv[1])\n"
        "from mmengine.registry import init_default_scope; init_default_scope('mmseg')\n"
        "from mmseg.registry import MODELS; m = MODELS.build(c.model).eval()\n"
        "data = m.data_preprocessor({'inputs': [torch.zeros(3, 240, 240, dtype=torch.uint8)], 'data_samples': None})\n"
        "with torch.no_grad(): print('shape', list(m(data['inputs']).shape))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "pasted.py")], capture_output=True, text=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert "shape [1, 150, " in done.stdout, done.stderr[-600:]
