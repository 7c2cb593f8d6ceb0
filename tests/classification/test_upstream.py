"""Upstream training: losses, mixup, optimizer and grids against official values; the start from a teacher; views."""

import dataclasses
import os
import random

import numpy as np
import pytest
import timm
import torch
from conftest import relative
from PIL import Image
from scipy.ndimage import zoom
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from backbones import FlexiBackbone, build_backbone
from backbones.contract import Normalisation
from backbones.encoder import HALF
from backbones.grids import PAPER_GRIDS, GridSchedule
from backbones.resize import resize_patch_kernel
from benchmarks.engine.suite import load_suite
from benchmarks.engine.training.optimizers import build_optimizer, clip_gradients, set_learning_rate
from tasks import build_task
from tasks.classification.preprocess import resize_bilinear
from tasks.contract import TaskError
from tasks.data.readers.official import Arrays
from tasks.data.splits import Labelled
from tasks.upstream.losses import kl_divergence, mix, mixup_share, sigmoid_cross_entropy
from tasks.upstream.models import initialise_from_teacher, supervised
from tasks.upstream.pictures import UpstreamPictures
from tasks.upstream.presets import PRESETS, preset
from tasks.upstream.randaugment import NAMES, cutout, operation, randaugment


@pytest.fixture(scope="module")
def values(golden) -> dict:
    return dict(np.load(golden / "train.npz"))


def test_losses_are_the_official(values) -> None:
    teacher = torch.from_numpy(values["loss/teacher"])
    for t in (1, 2):
        student = torch.from_numpy(values["loss/student"]).requires_grad_()
        loss = kl_divergence(teacher, student, t)
        assert relative(loss, values[f"loss/kl_t{t}"]) < 1e-6
        loss.mean().backward()
        assert relative(student.grad, values[f"loss/kl_t{t}_grad_of_mean"]) < 1e-5
    student, labels = (torch.from_numpy(values[f"loss/{k}"]) for k in ("student", "labels"))
    assert relative(sigmoid_cross_entropy(student, labels), values["loss/sigmoid_xent"]) < 1e-6


@pytest.mark.parametrize("strength", ["p0.2", "p1.0"])
def test_mixture_is_the_official(values, strength) -> None:
    x = torch.from_numpy(values[f"mixup/{strength}/x"])
    (found,) = mix(float(values[f"mixup/{strength}/a"]), x)
    assert relative(found, values[f"mixup/{strength}/out"]) < 1e-6


def test_share_is_of_the_larger_part() -> None:
    shares = [mixup_share(np.random.default_rng(i), 0.2) for i in range(300)]
    assert 0.5 <= min(shares) < 0.7 and 0.99 < max(shares) <= 1
    assert mixup_share(np.random.default_rng(0), 0.0) == 1


class Toy(nn.Module):
    """The parameters of the golden optimizer run."""

    def __init__(self, values: dict):
        super().__init__()
        self.lin = nn.Linear(5, 3)
        self.pos_embedding = nn.Parameter(torch.tensor(values["opt/init/pos_embedding"]))
        self.lin.weight.data = torch.tensor(values["opt/init/lin/kernel"]).T.contiguous()
        self.lin.bias.data = torch.tensor(values["opt/init/lin/bias"])


@pytest.mark.parametrize("kind, run", [("adamw_bf16", "i21k_adam"), ("adamw", "adam_f32mu")])
def test_optimizer_chain_is_the_official_over_eight_steps(values, kind, run) -> None:
    model = Toy(values)
    recipe = dataclasses.replace(preset("i21k_sup").recipe(), steps=8, warmup=3, optimizer=kind)
    adam = build_optimizer(model, recipe)
    for step in range(8):
        grads = {k: torch.tensor(values[f"opt/grad/{step}/{k}"]) for k in ("lin/bias", "lin/kernel")}
        model.lin.weight.grad, model.lin.bias.grad = grads["lin/kernel"].T.contiguous(), grads["lin/bias"]
        model.pos_embedding.grad = torch.tensor(values[f"opt/grad/{step}/pos_embedding"])
        clip_gradients(model.parameters(), recipe.clip)
        if step == 4:  # as after a checkpoint
            state, adam = adam.state_dict(), build_optimizer(model, recipe)
            adam.load_state_dict(state)
        set_learning_rate(adam, recipe, step)
        adam.step()
        found = {"lin/kernel": model.lin.weight.T, "lin/bias": model.lin.bias, "pos_embedding": model.pos_embedding}
        for key, value in found.items():
            assert relative(value, values[f"opt/{run}/{step}/{key}"]) < 1e-6


def test_grids_are_the_official_sequence(values) -> None:
    schedule = GridSchedule("random", PAPER_GRIDS)
    assert [schedule.grid(s, 100)[0] for s in range(1, 101)] == values["seqhw/first100"].tolist()


def test_presets_are_the_official_constants() -> None:
    sup, small, large = (PRESETS[n].recipe() for n in ("i21k_sup", "i1k_deit3_distill", "i21k_distill"))
    assert (sup.batch, sup.lr, sup.warmup, sup.mixup, sup.clip) == (4096, 1e-3, 10_000, 0.2, 1.0)
    assert (small.batch, small.lr, small.warmup, small.mixup, small.clip) == (1024, 1e-4, 5_000, 1.0, 1.0)
    assert all(round(r.weight_decay, 12) == 0.1 and r.schedule == "cosine" for r in (sup, small, large))
    assert all(r.optimizer == "adamw_bf16" and r.decay_kernels_only for r in (sup, small, large))
    assert abs(small.steps - 1_281_167 * 0.99 * 90 / 1024) < 2  # ninety epochs of 99 % of ImageNet-1k
    assert abs(preset("i1k_deit3_distill").recipe(300).steps - small.steps * 300 / 90) < 3
    with pytest.raises(TaskError, match="nearest: i1k_deit3_distill"):
        preset("deit3_distill")


@pytest.mark.parametrize("scale", ["paper", "mini"])
def test_suites_store_kernels_of_the_presets_patch(scale) -> None:
    """That of the finest grid, or of the teacher: a student of another starts as a lossy copy."""
    for cell in load_suite(f"{scale}/upstream", ".").cells:
        if cell.task != "upstream":
            continue
        expected = preset(cell.options["preset"]).base_patch if scale == "paper" else 8  # 120 px at grid 15
        assert cell.backbone_options["patch"] == expected


def of_shape(teacher: FlexiBackbone, positions: int) -> FlexiBackbone:
    """A student of the teacher's depth, width and patch, with big_vision's details."""
    old = teacher.trunk
    trunk = VisionTransformer(
        img_size=teacher.image_size, patch_size=teacher.base_kernel.shape[-1], embed_dim=old.embed_dim,
        depth=len(old.blocks), num_heads=old.blocks[0].attn.num_heads, num_classes=old.num_classes,
        no_embed_class=True, act_layer="gelu_tanh",
    )  # fmt: skip
    student = FlexiBackbone(trunk, HALF, teacher.image_size, teacher.native_grid)
    trunk.pos_embed = nn.Parameter(torch.zeros(1, positions**2, old.embed_dim))
    student.position_grid = (positions, positions)
    return student.eval()


@pytest.mark.parametrize("class_position", [False, True])
def test_student_of_another_form_starts_with_its_teachers_answers(class_position) -> None:
    torch.manual_seed(0)
    form = {"img_size": 56, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 5}
    trunk = timm.models.VisionTransformer(
        **form, init_values=0.3, no_embed_class=not class_position, act_layer="gelu_tanh"
    )
    nn.init.normal_(trunk.head.weight)
    nn.init.normal_(trunk.pos_embed)
    imagenet = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    teacher = FlexiBackbone(trunk, imagenet).eval()
    student = of_shape(teacher, 7)
    initialise_from_teacher(student, teacher)
    images = torch.randint(0, 256, (2, 3, 56, 56), dtype=torch.uint8)
    with torch.no_grad():
        expected = teacher.head(teacher(images, 7).pooled)
        assert relative(student.head(student(images, 7).pooled), expected) < 1e-5


def test_positions_and_kernel_are_resized_as_the_official_loader_does() -> None:
    teacher = build_backbone("vit_nano_g8").fixed_at_native_grid().eval()
    wide = build_backbone("flexivit_nano_scratch")
    initialise_from_teacher(wide, teacher)
    assert wide.base_kernel.equal(resize_patch_kernel(teacher.base_kernel, 32))
    positions = teacher.trunk.pos_embed[0].detach().reshape(8, 8, -1).numpy()
    assert relative(wide.trunk.pos_embed[0].unflatten(0, (7, 7)), zoom(positions, (7 / 8, 7 / 8, 1), order=1)) < 1e-5
    with pytest.raises(TaskError, match="head.weight"):
        initialise_from_teacher(build_backbone("flexivit_nano_scratch", num_classes=3), teacher)


def test_a_new_classifier_starts_at_its_bias() -> None:
    model = supervised(build_backbone("flexivit_nano_scratch"), 21, -10.0)
    assert not model.backbone.head.weight.any() and (model.backbone.head.bias == -10).all()
    kept = supervised(build_backbone("flexivit_nano"), 100, -10.0)  # a trained classifier of as many classes stays
    assert kept.backbone.head.weight.any() and not (kept.backbone.head.bias == -10).any()


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    small = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    return torch.from_numpy(np.array(Image.fromarray(small).resize((200, 150)))).permute(2, 0, 1).contiguous()


def pictures_of(picture: torch.Tensor, **options) -> UpstreamPictures:
    array = picture.permute(1, 2, 0).numpy()
    one = Labelled(["a"], Arrays(array[None], ("a",)), labels=np.zeros(1, np.int64), classes=("one",))
    return UpstreamPictures(one, 56, **options)


def test_teacher_sees_the_same_crop_at_its_own_size(picture) -> None:
    pictures = pictures_of(picture, teacher_side=112)
    same = [pictures.sample(0, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert same[0][0].equal(same[1][0]) and same[0][1]["teacher"].equal(same[1][1]["teacher"])
    apart = []
    for seed in range(20):
        own, target = pictures.sample(0, torch.Generator().manual_seed(seed))
        assert own.shape == (3, 56, 56) and target["teacher"].shape == (3, 112, 112)
        apart.append((resize_bilinear(target["teacher"], 56, 56).float() - own.float()).abs().mean())
    # the smooth picture of 200 px, cut and resized twice: another crop would be tens of levels away
    assert max(apart) < 4
    other = pictures.sample(0, torch.Generator().manual_seed(4))[0]
    assert (other.float() - same[0][0].float()).abs().mean() > 10


def test_squeezed_evaluation_is_the_official(golden) -> None:
    values = np.load(golden / "train.npz")
    image = torch.from_numpy(values["pp/img"])
    image = (image[0] if image.ndim == 4 else image).permute(2, 0, 1).contiguous()
    found, _ = pictures_of(image, squeeze=True)[0]  # 56 px: resize(64), then the central 56
    expected = torch.from_numpy(values["pp/resize64"])
    expected = (expected[0] if expected.ndim == 4 else expected).permute(2, 0, 1)[:, 4:60, 4:60]
    assert found.equal(expected.to(torch.uint8))


def test_randaugment_is_a_function_of_its_generator_and_leaves_pythons_alone(picture) -> None:
    random.seed(5)
    before = random.getstate()
    one, two, three = (randaugment(picture, 2, 10, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert random.getstate() == before
    assert one.equal(two) and not one.equal(three) and one.shape == picture.shape and one.dtype == torch.uint8


def test_randaugment_operations_are_the_official(picture) -> None:
    image = Image.fromarray(picture.permute(1, 2, 0).numpy())
    array = np.asarray(image).astype(np.float64)
    assert len(NAMES) == 16
    for name in NAMES:
        assert operation(name, 10)(image).size == image.size
    assert np.array_equal(operation("Solarize", 10)(image), image)  # a threshold of 256 is above all bytes
    assert np.array_equal(operation("Posterize", 10)(image), np.asarray(image) & 0xF0)
    grey = min(150 * 200 / 256, 255) // 1
    expected = np.clip(grey + 1.9 * (array - grey), 0, 255)
    assert np.abs(np.asarray(operation("Contrast", 10)(image)) - expected).max() <= 1
    added = np.where(array < 128, np.clip(array + 110, 0, 255), array)
    assert np.array_equal(operation("SolarizeAdd", 10)(image), added)
    moved = np.asarray(operation("TranslateX", 10)(image))
    halves = (moved[:, :100], array[:, 100:]), (moved[:, 100:], array[:, :100])  # a hundred pixels to either side
    assert any(np.array_equal(a, b) for a, b in halves) and (moved == 128).all(-1).sum() >= 150 * 100
    cut = np.asarray(cutout(image, 40))
    changed = (cut != np.asarray(image)).any(-1)
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    assert np.ptp(rows) < 80 and np.ptp(columns) < 80 and (cut[changed] == 128).all()


@pytest.mark.parametrize(
    "options, words",
    [
        ({"preset": "i21k"}, "nearest: i21k_"),
        ({"preset": "i21k_sup", "teacher": "vit_nano_g8"}, "has no teacher"),
        ({"preset": "i21k_sup", "metric": "agreement"}, "there are: top1"),
        ({"data": "tinyimagenet"}, "tinyimagenet100"),
        ({"teacher": "vit_nano_g16"}, "nearest: vit_nano_g15"),
        ({"epochs": -1}, "0 or more"),
    ],
)
def test_wrong_options_are_named(options, words) -> None:
    with pytest.raises(ValueError, match=words):
        build_task("upstream", options=options)


def test_a_teacher_of_other_classes_has_no_top1(tmp_path) -> None:
    options = {"data": "scenes", "teacher": "vit_nano_g8"}
    with pytest.raises(TaskError, match="metric=agreement"):
        build_task("upstream", tmp_path, options).model(build_backbone("flexivit_nano_scratch"))


def test_teacher_is_neither_trained_nor_kept() -> None:
    if not (folder := os.environ.get("FLEXIVIT_DATA")):
        pytest.skip("FLEXIVIT_DATA is not set: no real pictures at hand")
    task = build_task("upstream", folder, {"data": "tinyimagenet100", "teacher": "vit_nano_g15"})
    model = task.model(build_backbone("flexivit_nano_scratch", patch=8))
    assert not any("teacher" in name for name in (*model.state_dict(), *dict(model.named_parameters())))
    dataset, rng = task.dataset("train"), torch.Generator().manual_seed(0)
    batch = task.augment(model, task.collate([(i, *dataset.sample(i, rng)) for i in range(4)]), rng)
    task.loss(model, batch, (5, 5))["loss"].backward()
    assert model.backbone.base_kernel.grad is not None
    assert all(p.grad is None for p in task.teacher.parameters())
    # the start is the teacher: at its own grid its answers, up to the fewer positions
    evaluated = task.collate([(i, *task.dataset("val")[i]) for i in range(16)])
    prepared, asked, plain = task.prepare(model, "val"), list[int](), model.answers
    model.answers = lambda pictures: (asked.append(len(pictures)), plain(pictures))[1]
    near, far = (task.predict(model, evaluated, v.grid, prepared)["kl"].mean() for v in task.views([15, 4]))
    assert 0 <= near < far / 20 and asked == [len(evaluated)]
