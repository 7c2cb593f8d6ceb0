"""Distillation against the official values, and a run from start to an exported student."""

import os
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from conftest import relative
from scipy.ndimage import zoom
from torch import nn

from backbones import FlexiBackbone, build_backbone
from backbones.grids import PAPER_GRIDS, GridSchedule
from backbones.resize import resize_patch_kernel
from backbones.zoo.files import HALF
from benchmarks import distill
from benchmarks.pretrain import learning_rate
from benchmarks.pretrain_data import Pictures
from benchmarks.pretrain_recipes import RECIPES, Recipe, recipe
from benchmarks.studies.distillation import student_of
from benchmarks.studies.pi_resize import fix_at_native_grid
from benchmarks.studies.settings import run_study


@pytest.fixture(scope="module")
def values(golden) -> dict:
    return dict(np.load(golden / "train.npz"))


def test_losses_are_the_official(values) -> None:
    teacher = torch.from_numpy(values["loss/teacher"])
    for t in (1, 2):
        student = torch.from_numpy(values["loss/student"]).requires_grad_()
        loss = distill.kl_divergence(teacher, student, t)
        assert relative(loss, values[f"loss/kl_t{t}"]) < 1e-6
        loss.mean().backward()
        assert relative(student.grad, values[f"loss/kl_t{t}_grad_of_mean"]) < 1e-5
    student, labels = (torch.from_numpy(values[f"loss/{k}"]) for k in ("student", "labels"))
    assert relative(distill.sigmoid_cross_entropy(student, labels), values["loss/sigmoid_xent"]) < 1e-6


@pytest.mark.parametrize("strength", ["p0.2", "p1.0"])
def test_mixture_is_the_official(values, strength) -> None:
    x = torch.from_numpy(values[f"mixup/{strength}/x"])
    (found,) = distill.mix(float(values[f"mixup/{strength}/a"]), x)
    assert relative(found, values[f"mixup/{strength}/out"]) < 1e-6


def test_mixture_share_is_of_the_larger_and_one_for_all() -> None:
    x = torch.eye(4)
    shares = [float(distill.mixup(np.random.default_rng(i), 0.2, x)[0][0, 0]) for i in range(300)]
    assert 0.5 <= min(shares) < 0.7 and 0.99 < max(shares) <= 1
    one, two = distill.mixup(np.random.default_rng(1), 1.0, x, 2 * x)
    assert torch.equal(2 * one, two)
    assert torch.equal(distill.mixup(np.random.default_rng(1), 0.0, x)[0], x)


class Toy(nn.Module):
    """The parameters of the golden optimizer run."""

    def __init__(self, values: dict):
        super().__init__()
        self.lin = nn.Linear(5, 3)
        self.pos_embedding = nn.Parameter(torch.from_numpy(values["opt/init/pos_embedding"]))
        self.lin.weight.data = torch.from_numpy(values["opt/init/lin/kernel"]).T.contiguous()
        self.lin.bias.data = torch.from_numpy(values["opt/init/lin/bias"])


def test_optimizer_chain_is_the_official_over_eight_steps(values) -> None:
    model, constants = Toy(values), recipe("i21k_sup")
    adam = distill.optimizer(model, constants)
    for step in range(8):
        grads = {k: torch.from_numpy(values[f"opt/grad/{step}/{k}"]) for k in ("lin/bias", "lin/kernel")}
        model.lin.weight.grad, model.lin.bias.grad = grads["lin/kernel"].T.contiguous(), grads["lin/bias"]
        model.pos_embedding.grad = torch.from_numpy(values[f"opt/grad/{step}/pos_embedding"])
        torch.nn.utils.clip_grad_norm_(model.parameters(), constants.clip)
        for group in adam.param_groups:
            group["lr"] = learning_rate(step, 8, 3, constants.learning_rate)
        adam.step()
        found = {"lin/kernel": model.lin.weight.T, "lin/bias": model.lin.bias, "pos_embedding": model.pos_embedding}
        for key, value in found.items():
            assert relative(value, values[f"opt/adam_f32mu/{step}/{key}"]) < 1e-6
            assert relative(value, values[f"opt/i21k_adam/{step}/{key}"]) < 1e-4  # its first moment is bfloat16


def test_grids_are_the_official_sequence(values) -> None:
    schedule = GridSchedule("random", RECIPES["i21k_sup"].grids)
    assert [schedule.grid(s, 100)[0] for s in range(1, 101)] == values["seqhw/first100"].tolist()


def test_recipes() -> None:
    assert [round(r.torch_decay, 12) for r in RECIPES.values()] == [0.1, 0.1, 0.1]
    assert all(r.grids == PAPER_GRIDS and r.clip == 1.0 for r in RECIPES.values())
    with pytest.raises(ValueError, match="nearest: i1k_deit3_distill"):
        recipe("deit3_distill")


def test_student_starts_as_its_teacher() -> None:
    teacher = fix_at_native_grid(build_backbone("vit_nano_g8")).eval()
    student = student_of(teacher, 7).eval()
    assert student.base_kernel.equal(teacher.base_kernel) and student.position_grid == (7, 7)
    positions = teacher.trunk.pos_embed[0].detach().reshape(8, 8, -1).numpy()
    expected = zoom(positions, (7 / 8, 7 / 8, 1), order=1)
    assert relative(student.trunk.pos_embed[0].unflatten(0, (7, 7)), expected) < 1e-5
    wide = build_backbone("flexivit_nano", pretrained=False)
    distill.initialise_from_teacher(wide, teacher)
    assert wide.base_kernel.equal(resize_patch_kernel(teacher.base_kernel, 32))
    with pytest.raises(ValueError, match="head.weight"):
        distill.initialise_from_teacher(build_backbone("flexivit_nano", pretrained=False, num_classes=3), teacher)


def test_layer_scale_is_folded() -> None:
    torch.manual_seed(0)
    shape = {"img_size": 56, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 5}
    trunk = timm.models.VisionTransformer(**shape, init_values=0.3, no_embed_class=True, act_layer="gelu_tanh")
    nn.init.normal_(trunk.head.weight)
    teacher = FlexiBackbone(trunk, HALF).eval()
    student = student_of(teacher, 7).eval()
    images = torch.randint(0, 256, (2, 3, 56, 56), dtype=torch.uint8)
    with torch.no_grad():
        assert relative(student.head(student(images, 7).pooled), teacher.head(teacher(images, 7).pooled)) < 1e-5


@pytest.mark.slow
def test_killed_and_continued_equals_uninterrupted(tmp_path) -> None:
    images = torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pictures = Pictures(images, torch.zeros(6, dtype=torch.int64), ["one"])
    teacher = fix_at_native_grid(build_backbone("vit_nano_g8")).eval()
    constants = Recipe("", 100, 2, 1, (1,), "kl", 1.0, 1e-3, 1e-4, 1, 15)
    schedule = GridSchedule("random", (4, 5))

    class KilledError(Exception):
        pass

    def dies(text: str) -> None:
        if "22/22" in text:
            raise KilledError  # the checkpoint of step 20 is there, that of 22 is not

    whole, cut = student_of(teacher, 7), student_of(teacher, 7)
    distill.distill(whole, teacher, pictures, schedule, constants, 22, tmp_path / "whole.pt", report=lambda _: None)
    with pytest.raises(KilledError):
        distill.distill(cut, teacher, pictures, schedule, constants, 22, tmp_path / "cut.pt", report=dies)
    again = student_of(teacher, 7)
    distill.distill(again, teacher, pictures, schedule, constants, 22, tmp_path / "cut.pt", report=lambda _: None)
    assert again.weights_hash() == whole.weights_hash() != student_of(teacher, 7).weights_hash()


def test_run_exports_a_backbone(tmp_path) -> None:
    folder = os.environ.get("FLEXIVIT_DATA")
    if not folder:
        pytest.skip("FLEXIVIT_DATA is not set: no real pictures at hand")
    changes = ["pictures=8", "grids=[4,8]", "teacher=vit_nano_g8"]
    result = run_study("distillation", "demo", Path(folder) / "pretrain", tmp_path, "cpu", changes)
    assert result["before"]["8"]["kl"] < result["before"]["4"]["kl"]
    student = build_backbone(str(tmp_path / "student.safetensors"))
    assert student(torch.zeros(1, 3, 120, 120, dtype=torch.uint8), 4).pooled.shape == (1, 128)
    assert student.trunk.num_classes == 100 and student.base_kernel.shape[-1] == 15


def test_a_teacher_that_normalises_otherwise_is_refused() -> None:
    teacher = build_backbone("timm:deit3_small_patch16_224", pretrained=False)
    with pytest.raises(ValueError, match="normalise pictures differently"):
        student_of(teacher, 7)
