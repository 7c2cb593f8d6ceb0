"""Losses, mixup and the teacher's part of upstream training, against formulas written out; no golden values needed."""

import numpy as np
import pytest
import torch

from backbones import build_backbone
from tasks import build_task
from tasks.classification.preprocess import flip, inception_box, resize_bilinear
from tasks.contract import Batch
from tasks.upstream.losses import kl_divergence, mix, mixup_share, sigmoid_cross_entropy
from tasks.upstream.pictures import UpstreamPictures


def test_losses_by_hand() -> None:
    teacher, student = torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([[0.0, 1.0, 3.0]])
    p, q = (x.softmax(-1) for x in (teacher, student))
    assert kl_divergence(teacher, student).item() == pytest.approx((p * (p / q).log()).sum().item())
    p, q = ((x / 2).softmax(-1) for x in (teacher, student))
    assert kl_divergence(teacher, student, 2.0).item() == pytest.approx(4 * (p * (p / q).log()).sum().item())
    wanted = torch.tensor([[1.0, 0.0, 0.5]])
    s = student.sigmoid()
    by_hand = -(wanted * s.log() + (1 - wanted) * (1 - s).log()).sum()
    assert sigmoid_cross_entropy(student, wanted).item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_a_picture_keeps_the_larger_part_of_itself_and_the_rest_is_its_neighbours() -> None:
    shares = [mixup_share(np.random.default_rng(i), 1.0) for i in range(200)]
    assert 0.5 <= min(shares) < 0.55 and 0.95 < max(shares) <= 1 and mixup_share(np.random.default_rng(0), 0.0) == 1
    x = torch.tensor([1.0, 2.0, 4.0])
    assert mix(0.75, x)[0].tolist() == [0.75 * 1 + 0.25 * 4, 0.75 * 2 + 0.25 * 1, 0.75 * 4 + 0.25 * 2]


def test_the_teachers_pictures_are_mixed_as_the_students(tmp_path) -> None:
    options = {"preset": "i1k_deit3_distill", "data": "scenes", "teacher": "vit_nano_g15", "metric": "agreement"}
    task = build_task("upstream", tmp_path, options)
    model = task.model(build_backbone("flexivit_nano_scratch", patch=8))
    pictures = torch.randint(0, 255, (4, 3, 120, 120), dtype=torch.uint8)
    others = torch.randint(0, 255, (4, 3, 120, 120), dtype=torch.uint8)
    batch = Batch(torch.arange(4), pictures, {"label": torch.arange(4), "teacher": others})
    mixed = task.augment(model, batch, torch.Generator().manual_seed(1))
    own, other = mixed.images, mixed.targets["teacher"]
    plain = model.backbone.normalise(pictures)
    assert not torch.allclose(own, plain, atol=0.1)
    # both are mixed with one share, whatever each normalises by
    share = ((own - plain.roll(1, 0)) / (plain - plain.roll(1, 0))).nanmedian()
    theirs = model.teacher.normalise(others)
    assert torch.allclose(other, share * theirs + (1 - share) * theirs.roll(1, 0), atol=1e-3)
    loss = task.loss(model, mixed, (8, 8))["loss"]
    answers = model.answers(other).float()
    assert loss.item() == pytest.approx(kl_divergence(answers, model(own, (8, 8)).float()).mean().item(), rel=1e-4)


def test_the_teachers_picture_is_resized_from_the_full_crop() -> None:
    made = UpstreamPictures.__new__(UpstreamPictures)
    picture = torch.randint(0, 255, (3, 200, 260), dtype=torch.uint8)
    made.side, made.teacher_side, made.randaug = 40, 160, None
    made.picture, made.label = lambda i: picture, lambda i: 0
    own, target = made.sample(0, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    top, left, height, width = inception_box(200, 260, generator)
    cut = flip(picture[:, top : top + height, left : left + width], generator)
    assert torch.equal(own, resize_bilinear(cut, 40, 40))
    assert torch.equal(target["teacher"], resize_bilinear(cut, 160, 160))
