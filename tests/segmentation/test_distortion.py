"""Photometric distortion of a batch on the device: mmseg's, picture by picture, with the same numbers drawn."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from tasks import build_task
from tasks.contract import Task
from tasks.segmentation.distortion import Distortion, distort, draw_distortion, to_hsv, to_rgb
from tasks.segmentation.pipelines import SegmentationData, train_pipeline


def some_pictures(count: int = 12, side: int = 64) -> Tensor:
    """Noise of all colours, and smooth ones, and greys."""
    random = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (count // 3, 3, side, side), generator=random)
    coarse = torch.rand(count // 3, 3, 4, 4, generator=random) * 255
    smooth = torch.nn.functional.interpolate(coarse, size=side, mode="bilinear")
    grey = torch.randint(0, 256, (count // 3, 1, side, side), generator=random).expand(-1, 3, -1, -1)
    return torch.cat([noise, smooth, grey]).to(torch.uint8)


class Told:
    """In place of NumPy's generator: what mmseg draws, in its order."""

    def __init__(self, drawn: Distortion, i: int):
        part = {name: getattr(drawn, name)[i].item() for name in vars(drawn)}
        contrast = [int(part["contrast"] != 1), part["contrast"]][: 1 + (part["contrast"] != 1)]
        light = [int(part["brightness"] != 0), part["brightness"]][: 1 + (part["brightness"] != 0)]
        colours = [int(part["saturated"]), *([part["saturation"]] if part["saturated"] else [])]
        colours += [int(part["turned"]), *([part["hue"]] if part["turned"] else [])]
        early = part["early"]
        self.values = [*light, int(early), *(contrast if early else []), *colours, *([] if early else contrast)]

    def randint(self, *_: Any) -> int:
        return int(self.values.pop(0))

    def uniform(self, *_: Any) -> float:
        return float(self.values.pop(0))


def by_mmseg(images: Tensor, drawn: Distortion, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    from mmseg.datasets.transforms import transforms

    found = []
    for i, image in enumerate(images):
        told = Told(drawn, i)
        monkeypatch.setattr(transforms, "random", told)
        bgr = np.ascontiguousarray(image.permute(1, 2, 0).numpy()[..., ::-1])
        out = transforms.PhotoMetricDistortion().transform({"img": bgr})["img"]
        assert not told.values
        found.append(torch.from_numpy(np.ascontiguousarray(out[..., ::-1])).permute(2, 0, 1))
    return torch.stack(found)


def test_hues_are_opencvs() -> None:
    values = torch.arange(0, 256, 5)
    every = torch.cartesian_prod(values, values, values).to(torch.uint8)  # all colours, in steps of 5
    pixels = every.T[None, :, None]
    hsv = torch.stack(to_hsv(pixels), -1)[0, 0]
    wanted = cv2.cvtColor(every[None].numpy(), cv2.COLOR_RGB2HSV)[0]
    assert np.array_equal(hsv.numpy().astype(np.uint8), wanted)
    back = to_rgb(*(t[None, None] for t in hsv.T))[0, :, 0].T
    there = cv2.cvtColor(wanted[None], cv2.COLOR_HSV2RGB)[0]
    assert np.abs(back.numpy() - there.astype(np.float32)).max() <= 1


def test_a_batch_is_what_mmseg_makes_of_each(monkeypatch) -> None:
    images = some_pictures()
    for seed in range(4):
        drawn = draw_distortion(len(images), torch.Generator().manual_seed(seed))
        found, wanted = distort(images, drawn), by_mmseg(images, drawn, monkeypatch)
        gap = (found.int() - wanted.int()).abs()
        # a hue that OpenCV's vector loop and the rest of its row round apart is one of 180 further on
        assert found.dtype == torch.uint8 and gap.max() <= 4 and gap.float().mean() < 0.02, (seed, gap.max())
        assert (gap > 2).float().mean() < 1e-4 and (gap > 1).float().mean() < 0.01
        assert not torch.equal(found, images)


def test_the_law_is_mmsegs() -> None:
    drawn = draw_distortion(40_000, torch.Generator().manual_seed(1))
    for done in (drawn.early, drawn.saturated, drawn.turned, drawn.brightness != 0, drawn.contrast != 1):
        assert abs(done.double().mean() - 0.5) < 0.01
    pairs = torch.stack([drawn.early, drawn.saturated, drawn.turned, drawn.brightness != 0, drawn.contrast != 1])
    assert (torch.corrcoef(pairs.double()) - torch.eye(5)).abs().max() < 0.02
    turned = drawn.hue[drawn.turned]
    assert (
        turned.min() == -18 and turned.max() == 17 and not drawn.hue[~drawn.turned].any()
    )  # NumPy's randint ends before
    assert (torch.bincount(turned + 18).double() / len(turned) - 1 / 36).abs().max() < 0.005
    for values, low, high in (
        (drawn.brightness[drawn.brightness != 0], -32, 32), (drawn.contrast[drawn.contrast != 1], 0.5, 1.5),
        (drawn.saturation[drawn.saturated], 0.5, 1.5),
    ):  # fmt: skip
        share = ((values - low) / (high - low)).sort().values.double()
        assert (share - torch.linspace(0, 1, len(share))).abs().max() < 0.012  # Kolmogorov's distance to a uniform law


@pytest.fixture
def task(tmp_path) -> Task:
    return build_task("segmentation", root=tmp_path, options={"data": "scenes", "crop": 40})


def names(data: SegmentationData) -> list[str]:
    return [type(part).__name__ for part in data.pipeline.transforms]


def test_a_gpu_distorts_and_a_cpu_leaves_it_to_decoding(task) -> None:
    assert train_pipeline(480)[-1] == {"type": "PhotoMetricDistortion"}
    here, there = task.in_training(), task.in_training().training_on("cuda")
    assert names(here.dataset("train"))[-1] == "PhotoMetricDistortion" and not here.moved()
    assert "PhotoMetricDistortion" not in names(there.dataset("train")) and there.moved() == ["photometric distortion"]
    data = there.dataset("train")
    batch = there.collate([(i, *data.sample(i, torch.Generator().manual_seed(i))) for i in range(6)])
    assert here.augment(None, batch, torch.Generator()) is batch
    one, same, other = (there.augment(None, batch, torch.Generator().manual_seed(s)).images for s in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other) and one.dtype == torch.uint8
    # boxes, mirrors and labels are those of the CPU's pipeline
    plain = here.dataset("train").sample(3, torch.Generator().manual_seed(3))
    assert torch.equal(plain[1]["label"], batch.targets["label"][3])
