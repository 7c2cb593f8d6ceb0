"""The embedded nano weights: their size, their load, and the accuracy that the table claims."""

import json
import os
from pathlib import Path

import pytest
import torch

from backbones import build_backbone
from backbones.grids import NANO_GRIDS
from backbones.zoo.nano import FOLDER, NATIVE
from benchmarks.experiments.pretrain import accuracy
from benchmarks.experiments.pretrain_data import Pictures, load_tiny_imagenet
from benchmarks.experiments.pretrain_report import plot, read_results, table

MEASURED = Path(__file__).parents[2] / "results" / "measured" / "nano" / "top1.json"


def test_weights_are_small_and_run_at_every_grid() -> None:
    assert sum((FOLDER / f"{n}.safetensors").stat().st_size for n in NATIVE) <= 12 * 2**20
    images = torch.randint(0, 256, (2, 3, 120, 120), dtype=torch.uint8)
    for name in NATIVE:
        model = build_backbone(name).eval()
        with torch.no_grad():
            logits = [model.head(model(images, g).pooled) for g in NANO_GRIDS]
        assert all(x.shape == (2, 100) and torch.isfinite(x).all() for x in logits)


def _reproduces(count: int, tolerance: float) -> None:
    pictures = load_tiny_imagenet(Path(os.environ["FLEXIVIT_DATA"]) / "pretrain", "val")
    claimed = json.loads(MEASURED.read_text())
    few = Pictures(pictures.images[:count], pictures.labels[:count], pictures.classes)
    for name in NATIVE:
        found = accuracy(build_backbone(name), few, (4, 8))
        for grid, value in found.items():
            assert value == pytest.approx(claimed[name]["top1"][grid], abs=tolerance), (name, grid)


@pytest.mark.skipif("FLEXIVIT_DATA" not in os.environ, reason="FLEXIVIT_DATA names no folder of real pictures")
def test_accuracy_on_some_pictures_is_near_the_claim() -> None:
    # four standard errors of 1,000 pictures at 8 %
    _reproduces(1000, 0.035)


@pytest.mark.slow
@pytest.mark.skipif("FLEXIVIT_DATA" not in os.environ, reason="FLEXIVIT_DATA names no folder of real pictures")
def test_accuracy_is_the_claim() -> None:
    # weights are stored in 16 bits, so a few of 5,000 pictures may change side
    _reproduces(5000, 0.002)


def test_table_refuses_unequal_budgets(tmp_path) -> None:
    results = {n: {"images": 10, "top1": {"4": 0.1, "8": 0.2}} for n in NATIVE}
    for name, result in results.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    assert "| 10.0 | 20.0 | 0.50 |" in table(read_results(tmp_path))
    plot(read_results(tmp_path), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000
    (tmp_path / "vit_nano_g8.json").write_text(json.dumps({**results["vit_nano_g8"], "images": 20}))
    with pytest.raises(ValueError, match="budgets differ"):
        read_results(tmp_path)
    (tmp_path / "vit_nano_g8.json").unlink()
    with pytest.raises(ValueError, match="vit_nano_g8.json; make it with"):
        read_results(tmp_path)
