"""Training pictures of segmentation: each step of the pipeline and each of its numbers."""

from tasks import build_task
from tasks.segmentation.pipelines import SegmentationData, train_pipeline


def test_every_step_of_the_pipeline_is_there() -> None:
    assert train_pipeline(480, (2048, 512)) == [
        {"type": "RandomResize", "scale": (2048, 512), "ratio_range": (0.5, 2.0), "keep_ratio": True},
        {"type": "RandomCrop", "crop_size": (480, 480), "cat_max_ratio": 0.75},
        {"type": "RandomFlip", "prob": 0.5},
        {"type": "PhotoMetricDistortion"},
    ]
    assert train_pipeline(240)[0]["scale"] == (960, 240)


def test_windows_overlap_by_a_sixteenth_unless_said_otherwise() -> None:
    task = build_task("segmentation", options={"data": "ade20k", "short_side": 512, "flip": True})
    assert task.crop == 480 and task._evaluation() == (450, 512, (1.0,), True)
    assert build_task("segmentation", options={"data": "ade20k", "stride": 480})._evaluation()[0] == 480
    assert build_task("segmentation", options={"data": "cityscapes"})._evaluation()[0] == 675


def test_the_scale_of_the_set_reaches_its_training_pictures(tmp_path, monkeypatch) -> None:
    kept = {}

    def init(self, pairs, crop, train=False, scale=None, distorted=True):
        kept.update(crop=crop, train=train, scale=scale)

    monkeypatch.setattr(SegmentationData, "__init__", init)
    task = build_task("segmentation", tmp_path, {"data": "cityscapes"})
    monkeypatch.setattr(type(task), "masked", lambda self, split: None)
    task.dataset("train")
    assert kept == {"crop": 720, "train": True, "scale": (2048, 1024)}
    task.dataset("val")
    assert kept["train"] is False
