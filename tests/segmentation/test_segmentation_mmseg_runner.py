"""FlexiViT in mmengine's Runner and mmseg's tools: changing and several grids, checkpoints, documented configs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmseg_tools import CROP, config, of_grids, pictures, whole_pictures, written
from PIL import Image

SNIPPETS = re.findall(
    r"```python\n(.*?)```", (Path(__file__).parents[2] / "docs" / "mmsegmentation.md").read_text(encoding="utf-8"), re.S
)


@pytest.fixture
def folder(tmp_path):
    return pictures(tmp_path)


def test_grids_change_in_training_and_several_are_tested(folder):
    from mmengine.config import Config
    from mmengine.runner import Runner

    from backbones import build_backbone
    from tasks.segmentation.mmseg_backbone import FlexiViT

    whole = config(folder, grid=6)
    tested = whole_pictures(whole)
    whole["model"]["test_cfg"] = {"mode": "slide", "crop_size": (CROP, CROP), "stride": (24, 24)}
    whole |= {
        "default_hooks": {"checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": 2},
                          "visualization": {"type": "SegVisualizationHook", "draw": True, "interval": 1}},
        "visualizer": {"type": "SegLocalVisualizer", "vis_backends": [{"type": "LocalVisBackend"}], "name": "drawn"},
        "custom_hooks": [{"type": "GridScheduleHook", "schedule": "curriculum:4,8"}],
        "test_dataloader": tested,
        "test_evaluator": {"type": "IoUMetric", "iou_metrics": ["mIoU"], "output_dir": str(folder / "maps")},
        "test_cfg": {"type": "GridTestLoop", "grids": [4, "6x8"]},
    }  # fmt: skip
    runner, seen = Runner.from_cfg(Config(whole)), []
    runner.model.backbone.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    runner.train()
    assert seen == [(4, 4), (8, 8)] and runner.model.backbone.grid == 6 and isinstance(runner.model.backbone, FlexiViT)
    metrics = runner.test()
    assert set(seen[2:]) == {(4, 4), (6, 8)} and runner.model.backbone.grid == 6
    split = of_grids(metrics)
    assert set(split) == {"grid4x4", "grid6x8"} and all("mIoU" in values for values in split.values())
    assert split["grid4x4"] != split["grid6x8"]
    (told,) = written(folder / "work", "*/*.json")
    assert of_grids(told) == split
    # what mmseg writes of a picture, at each grid
    maps = [{p.name: p.read_bytes() for p in (folder / "maps" / name).iterdir()} for name in split]
    assert maps[0].keys() == maps[1].keys() and maps[0] and maps[0] != maps[1]
    assert not [p for p in (folder / "maps").iterdir() if p.is_file()]
    drawn = {p.name.partition("_")[0] for p in (folder / "work").rglob("vis_image/*")}
    assert drawn == set(split) and runner.test_evaluator.metrics[0].output_dir == str(folder / "maps")
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


@pytest.mark.parametrize(
    "size", [{"grid": 6}, pytest.param({"patch": 8}, marks=pytest.mark.slow)], ids=["grid", "patch"]
)
def test_validation_while_grids_change_is_at_its_own_grids(folder, size):
    """A schedule puts the backbone's grid back before validation, not in its midst; the best is kept by one grid."""
    from mmengine.config import Config
    from mmengine.runner import Runner

    whole, seen = config(folder, grid=None), []
    whole["model"]["backbone"] |= size
    whole["model"]["test_cfg"] = {"mode": "slide", "crop_size": (CROP, CROP), "stride": (CROP, CROP)}
    best = {"type": "CheckpointHook", "by_epoch": False, "interval": 2, "save_best": "grid8x8/mIoU", "rule": "greater"}
    whole |= {
        "custom_hooks": [{"type": "GridScheduleHook", "schedule": "curriculum:4,12"}],
        "default_hooks": {"checkpoint": best},
        "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 2, "val_interval": 2},
        "val_dataloader": whole_pictures(whole), "val_evaluator": {"type": "IoUMetric"},
        "val_cfg": {"type": "GridValLoop", "grids": [3, 8]},
    }  # fmt: skip
    runner = Runner.from_cfg(Config(whole))
    runner.model.backbone.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    runner.train()
    assert seen[:2] == [(4, 4), (12, 12)] and len(seen) == 2 + 2 * 16  # four windows of each of four pictures
    assert set(seen[2:18]) == {(3, 3)} and set(seen[18:]) == {(8, 8)}
    assert runner.model.backbone.grid == size.get("grid")
    assert list((folder / "work").glob("best_*"))
    (told,) = (line for line in written(folder / "work", "*/vis_data/scalars.json") if "grid3x3/mIoU" in line)
    split = of_grids(told)
    assert set(split) == {"grid3x3", "grid8x8"} and split["grid3x3"] != split["grid8x8"]
    assert of_grids(runner.val_loop.run()) == split
    # each as mmengine's own loop has it at that grid alone
    alone = {**whole, "load_from": str(folder / "work" / "iter_2.pth"), "val_cfg": {"type": "ValLoop"}}
    del alone["default_hooks"]
    for grid in (3, 8):
        other = Runner.from_cfg(Config({**alone, "experiment_name": f"alone {grid}"}))
        other.model.backbone.grid = grid
        assert other.val() == split[f"grid{grid}x{grid}"]


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
    (told,) = written(tmp_path / "work", "*/*.json")  # tools/test.py's alone: training writes below vis_data
    split = of_grids(told)
    assert set(split) == {"grid8x8", "grid16x16", "grid32x32"} and all("mIoU" in values for values in split.values())
    assert len({str(values) for values in split.values()}) == 3, split


@pytest.mark.parametrize(
    "snippet", [SNIPPETS[0], pytest.param(SNIPPETS[1], marks=pytest.mark.slow)], ids=["without _base_", "with mmseg::"]
)
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
