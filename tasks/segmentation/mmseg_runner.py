"""For mmengine's Runner: a backbone's normalisation, a grid schedule in training, several grids in testing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch

from tasks.segmentation import mmcv_lite

mmcv_lite.install()

import mmseg.models  # noqa: E402, F401  (fills the registry)
from mmengine.evaluator import Evaluator  # noqa: E402
from mmengine.hooks import Hook  # noqa: E402
from mmengine.logging import HistoryBuffer  # noqa: E402
from mmengine.model import is_model_wrapper  # noqa: E402
from mmengine.registry import HOOKS, LOOPS  # noqa: E402  (of mmengine: found from any scope)
from mmengine.runner import Runner, TestLoop, ValLoop  # noqa: E402
from mmengine.runner.checkpoint import CheckpointLoader  # noqa: E402
from mmseg.models import SegDataPreProcessor  # noqa: E402
from mmseg.registry import MODELS  # noqa: E402

from backbones import build_backbone  # noqa: E402
from backbones.grids import Grid, parse_schedule  # noqa: E402
from backbones.weights.checkpoints import HARMLESS  # noqa: E402


def preprocessor(name: str, crop: int, **options: Any) -> dict[str, Any]:
    """Config of mmseg's own data preprocessor for the normalisation of a backbone, padding to `crop` pixels.

    Example: `model = dict(data_preprocessor=preprocessor("flexivit_nano", 240), ...)`
    """
    # a random model is enough: the normalisation belongs to the name, not to the numbers of its weights
    normalisation = build_backbone(name, pretrained=False, **options).normalisation
    return {
        "type": "SegDataPreProcessor", "mean": [255 * m for m in normalisation.mean],
        "std": [255 * s for s in normalisation.std], "bgr_to_rgb": True, "pad_val": 0, "seg_pad_val": 255,
        "size": (crop, crop),
    }  # fmt: skip


@MODELS.register_module()
class FlexiViTPreprocessor(SegDataPreProcessor):
    """mmseg's data preprocessor with the normalisation of a backbone, by name: a config needs no Python for it.

    Args: name: of the backbone. size: pixels (height, width) or a side, to which training pictures are padded. more: as
        `SegDataPreProcessor` takes them.

    Example: `data_preprocessor=dict(type="FlexiViTPreprocessor", name="flexivit_nano", size=240)`
    """

    def __init__(self, name: str, size: int | tuple[int, int], **more: Any):
        height, width = (size, size) if isinstance(size, int) else size
        known = preprocessor(name, height)
        super().__init__(**{**{k: v for k, v in known.items() if k != "type"}, "size": (height, width), **more})


def _backbone(runner: Runner) -> Any:
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    return model.backbone


@HOOKS.register_module()
class GridScheduleHook(Hook):
    """The grid of each training step, a pure function of the step: equal on all processes and after a resume.

    Args: schedule: `random:5,8,15`, `curriculum:5,8,15` and so on, see `backbones.grids.parse_schedule`. seed: of a
        random one. After training the backbone has its own grid again.

    Example: `custom_hooks=[dict(type="GridScheduleHook", schedule="random:6,8,12")]`
    """

    def __init__(self, schedule: str, seed: int = 0):
        self.schedule = parse_schedule(schedule, seed)
        self.own: list[Any] = []  # the grid before training; it is None where the backbone has a patch size

    def before_train(self, runner: Runner) -> None:
        self.own = [_backbone(runner).grid]

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        _backbone(runner).grid = self.schedule.grid(runner.iter + 1, runner.max_iters)

    def _restore(self, runner: Runner) -> None:
        for grid in self.own:
            _backbone(runner).grid = grid

    def before_val(self, runner: Runner) -> None:
        self._restore(runner)

    def after_train(self, runner: Runner) -> None:
        self._restore(runner)


def _grid(value: int | str | list[int] | Grid) -> Grid:
    return parse_schedule(tuple(value) if isinstance(value, list) else value).grids[0]


@contextlib.contextmanager
def _files_apart(runner: Runner, evaluator: Evaluator, name: str) -> Iterator[None]:
    """Predictions and drawn pictures of a grid under its name: those of the next would take their places."""
    folders = {metric: metric.output_dir for metric in evaluator.metrics if getattr(metric, "output_dir", None)}
    visualizer = runner.visualizer
    draw = visualizer.add_datasample
    visualizer.add_datasample = lambda title, *args, **more: draw(f"{name}_{title}", *args, **more)
    try:
        for metric, folder in folders.items():
            metric.output_dir = os.path.join(folder, name)
            os.makedirs(metric.output_dir, exist_ok=True)
        yield
    finally:
        del visualizer.add_datasample
        for metric, folder in folders.items():
            metric.output_dir = folder


class _AtGrids:
    """A loop that runs once for each grid; its metrics are called `grid8x8/mIoU`."""

    def at_grids(self, grids: list[Grid], run: Any, stage: str) -> dict[str, float]:
        """Metrics of all grids. Hooks see them as one `stage`, test or val, so they are logged together, `save_best`
        takes their names, and what a hook does to the backbone before a stage does not undo a grid."""
        runner: Any = self.runner  # type: ignore[attr-defined]
        backbone, metrics, call = _backbone(runner), {}, runner.call_hook
        call(f"before_{stage}")
        call(f"before_{stage}_epoch")
        own = backbone.grid
        # mmengine's loop tells its hooks of a stage for each grid: all but its batches are kept from them
        runner.call_hook = lambda name, **more: call(name, **more) if name.endswith("_iter") else None
        try:
            for grid in grids:
                backbone.grid, name = grid, f"grid{grid[0]}x{grid[1]}"
                with _files_apart(runner, self.evaluator, name):  # type: ignore[attr-defined]
                    metrics |= {f"{name}/{metric}": value for metric, value in run().items()}
        finally:
            backbone.grid = own
            del runner.call_hook
        call(f"after_{stage}_epoch", metrics=metrics)
        call(f"after_{stage}")
        return metrics


@LOOPS.register_module()
class GridTestLoop(_AtGrids, TestLoop):
    """mmengine's test loop at several grids.  Example: `test_cfg=dict(type="GridTestLoop", grids=[6, 8, "8x12"])`"""

    def __init__(self, *args: Any, grids: list[Any], **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.grids = [_grid(g) for g in grids]

    def run(self) -> dict[str, float]:
        return self.at_grids(self.grids, super().run, "test")


@LOOPS.register_module()
class GridValLoop(_AtGrids, ValLoop):
    """mmengine's validation loop at several grids.  Example: `val_cfg=dict(type="GridValLoop", grids=[6, 8])`"""

    def __init__(self, *args: Any, grids: list[Any], **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.grids = [_grid(g) for g in grids]

    def run(self) -> dict[str, float]:
        return self.at_grids(self.grids, super().run, "val")


def _statistic(owner: Any, name: str) -> Any:
    """In place of `getattr`, by which a pickled log names its methods: those of a log and no others."""
    if owner is not HistoryBuffer or name not in ("min", "max", "current", "mean"):
        raise ValueError(f"a checkpoint asks for {name!r} of {owner!r}")
    return getattr(owner, name)


@CheckpointLoader.register_scheme(prefixes="", force=True)
def load_checkpoint(filename: str, map_location: Any = None) -> dict[str, Any]:
    """A checkpoint of mmengine from this machine's disk: for `tools/test.py`, `load_from` and `resume`.

    torch refuses the log of losses that mmengine keeps in it, unless told that it is harmless. Code stays refused.

    Raises: FileNotFoundError; UnpicklingError for a file that would run code.

    Example: `load_checkpoint("work_dirs/flexivit/iter_20000.pth", "cpu")["state_dict"]`
    """
    filename = os.path.expanduser(filename)
    if not os.path.isfile(filename):
        raise FileNotFoundError(f"no checkpoint {filename}")
    known = [one for one in HARMLESS if not (isinstance(one, tuple) and one[1].startswith(("mmengine", "builtins")))]
    with torch.serialization.safe_globals([*known, HistoryBuffer, (_statistic, "builtins.getattr")]):
        return torch.load(filename, map_location=map_location, weights_only=True)
