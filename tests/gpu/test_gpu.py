"""What only a GPU can show: the same numbers as a CPU, pictures fetched while others are computed on, no fall-back."""

import copy
import os

import pytest
import runner_tools  # noqa: F401  (makes the plug-in importable)
import torch
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from data_tools import small_pictures
from flexivit_toy import Toy
from tiny_backbone import tiny
from torch.utils.data import DataLoader

from backbones import build_backbone
from backbones.grids import NANO_GRIDS, GridSchedule, parse_schedule
from backbones.patches import by_convolution, by_product
from benchmarks.engine.batches.prefetch import ahead
from benchmarks.engine.batches.resident import Resident
from benchmarks.engine.finite import Diverged
from benchmarks.engine.runner import Runner, RunOptions
from benchmarks.engine.suite import load_suite
from benchmarks.engine.sweep import sweep
from benchmarks.engine.training.ledger import Ledger
from benchmarks.engine.training.loop import finetune
from benchmarks.engine.training.optimizers import Averaged, build_optimizer, clip_gradients
from benchmarks.engine.training.updates.muon import MuonAdamW
from benchmarks.speed.throughput import kernels
from benchmarks.store import Store
from tasks.contract import Batch, Recipe
from tasks.segmentation.distortion import distort, draw_distortion
from tasks.upstream.augmentation import crop_and_resize, draw_boxes, draw_factors, draw_mirrored, jitter_colours

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", autouse=True)
def device() -> torch.device:
    if os.environ.get("FLEXIVIT_GPU_TESTS_ON") == "cpu":  # to try the tests themselves where there is no GPU
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pytest.skip("this torch sees no GPU")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda")


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.detach().cpu().double() - expected.double()).norm() / expected.double().norm())


@pytest.fixture(scope="module")
def nano() -> torch.nn.Module:
    return build_backbone("flexivit_nano").eval()


@pytest.mark.parametrize("grid", NANO_GRIDS)
def test_features_and_gradients_are_those_of_a_cpu(nano, device, grid) -> None:
    images = torch.randint(0, 256, (4, 3, 120, 120), dtype=torch.uint8)
    there = copy.deepcopy(nano).to(device)
    for encoder, pictures in ((nano, images), (there, images.to(device))):
        encoder.zero_grad()
        encoder(pictures, grid).pooled.square().mean().backward()
    with torch.no_grad():
        assert relative(there(images.to(device), grid).pooled, nano(images, grid).pooled) < 1e-5
    assert relative(there.base_kernel.grad, nano.base_kernel.grad) < 1e-4
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
        assert relative(there(images.to(device), grid).pooled, nano(images, grid).pooled) < 0.03


@pytest.mark.parametrize("patch", [8, 15, 30])
def test_patches_by_product_are_those_by_convolution(device, patch) -> None:
    images, kernel = torch.randn(2, 3, 120, 120, device=device), torch.randn(16, 3, patch, patch, device=device)
    assert relative(by_product(images, kernel, None), by_convolution(images, kernel, None).cpu()) < 1e-5


def test_prefetched_batches_are_the_loader_s_own(device) -> None:
    pictures = [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8) for _ in range(64)]
    samples = [(i, picture, i % 7) for i, picture in enumerate(pictures)]
    task = Toy()
    loader = DataLoader(samples, batch_size=8, collate_fn=task.collate, pin_memory=device.type == "cuda")
    sums, busy = [], torch.randn(*[2048 if device.type == "cuda" else 32] * 2, device=device)
    for number, batch in ahead(enumerate(loader), device):
        for _ in range(20):
            busy = (busy @ busy).clamp(-1, 1)  # the copy of the next one runs beside this
        sums.append(batch.images.long().sum((1, 2, 3)) + 0 * int(number))
    assert torch.cat(sums).tolist() == [int(p.long().sum()) for p in pictures]


def test_resident_pictures_and_their_views_are_those_of_a_cpu(device) -> None:
    whole = Batch(
        torch.arange(32), torch.randint(0, 256, (32, 3, 64, 64), dtype=torch.uint8), {"label": torch.arange(32)}
    )
    index, random = torch.randperm(32)[:8], torch.Generator().manual_seed(0)
    here, there = Resident(whole).batch(index), Resident(whole.to(device)).batch(index)
    assert there.images.device.type == device.type and torch.equal(there.images.cpu(), here.images)
    assert torch.equal(there.targets["label"].cpu(), index)
    boxes, mirrored = draw_boxes(8, 64, 64, (0.2, 1.0), random), draw_mirrored(8, random)
    factors = draw_factors(8, 0.4, random)
    expected = jitter_colours(crop_and_resize(here.images, boxes, mirrored, (120, 120)), factors)
    moved = (t.to(device) for t in (boxes, mirrored))
    found = jitter_colours(crop_and_resize(there.images, *moved, (120, 120)), factors.to(device))
    assert (found.cpu() - expected).abs().max() < 0.05


@pytest.mark.parametrize("kind", ["adamw", "adam", "adamw_bf16", "sgd", "muon"])
def test_optimizers_step_as_on_a_cpu(device, kind) -> None:
    recipe = Recipe(steps=5, batch=4, lr=0.01, weight_decay=0.1, optimizer=kind)
    torch.manual_seed(0)
    here = tiny()
    there = copy.deepcopy(here).to(device)
    made = [build_optimizer(m, recipe) for m in (here, there)]
    averages = [Averaged(m, 0.9) for m in (here, there)]
    for step in range(5):
        for model, optimizer, average in zip((here, there), made, averages, strict=True):
            drawn = torch.Generator().manual_seed(step)
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=drawn).to(parameter.device)
            clip_gradients(model.parameters(), 1.0)
            optimizer.step()
            average.update(model, step)
    tolerance = 2e-2 if kind == "muon" else 2e-3 if kind == "adamw_bf16" else 1e-5  # products and moments in bfloat16
    for name, value in here.named_parameters():
        assert relative(dict(there.named_parameters())[name], value.detach()) < tolerance, name
    if kind == "muon":
        assert isinstance(made[1], MuonAdamW) and any(group["muon"] for group in made[1].param_groups)


def trained(device: torch.device | str, schedule: GridSchedule, compile: bool = False, lr: float = 0.01):
    recipe = Recipe(steps=14, batch=8, lr=lr, warmup=2, weight_decay=0.01, optimizer="adamw", ema=0.9)
    torch.manual_seed(0)
    task = Toy()
    model = task.model(tiny())
    AcceleratorState._reset_state(reset_partial_state=True)  # a process has one device otherwise
    try:
        on_cpu = torch.device(device).type == "cpu"
        return finetune(task, model, recipe, schedule, Accelerator(cpu=on_cpu), compile=compile)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def test_a_training_is_that_of_a_cpu(device) -> None:
    schedule = parse_schedule("random:2,4,6")
    here, there = trained("cpu", schedule), trained(device, schedule)
    assert there.steps == here.steps and len(there.losses) == len(here.losses)
    assert there.losses == pytest.approx(here.losses, rel=1e-3)


def test_a_loss_that_is_no_number_ends_the_training(device) -> None:
    with pytest.raises(Diverged, match="at step"):
        trained(device, parse_schedule(4), lr=1e30)


def test_numbers_are_read_together(device) -> None:
    ledger = Ledger(device)
    for step in range(3):
        ledger.add(step, {"loss": torch.tensor(float(step), device=device), "top1": 0.5})
    assert ledger.read() == [(step, {"loss": float(step), "top1": 0.5}) for step in range(3)] and not ledger.read()


def test_a_sweep_is_that_of_a_cpu(device) -> None:
    torch.manual_seed(0)
    task = Toy()
    model = task.model(tiny())
    views = task.views([2, 4, 6])
    here = sweep(task, model, views, "test")
    there = sweep(task, model.to(device), views, "test", device=device, batch=16)
    assert [v for v, _, _ in here.rows] == [v for v, _, _ in there.rows]
    for (_, a, _), (_, b, _) in zip(here.rows, there.rows, strict=True):
        assert a == pytest.approx(b, abs=0.02)


def test_attention_is_fused(nano, device) -> None:
    there, images = copy.deepcopy(nano).to(device), torch.randn(8, 3, 120, 120, device=device)
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
        ran = kernels(lambda: there(images, 8), device, most=30).lower()
    assert any(name in ran for name in ("flash", "cudnn", "fmha")), ran


def test_upstream_trainings_run_on_held_pictures(device, tmp_path) -> None:
    """The suite nano in small: both recipes, in bfloat16, from pictures to rows."""
    small_pictures(tmp_path, count=24)
    common = {"data": "small/set", "image_size": 120}
    recipe = {"steps": 6, "batch": 12, "warmup": 1}
    flexible = {"name": "flexivit_nano", "options": {"pretrained": False}, "train": ["random:4,5,8,15"]}
    distilled = {"name": "flexivit_nano_scratch", "options": {"patch": 8}, "train": ["random:4,15"]}
    teacher = {"preset": "nano_distill", "teacher": "vit_nano_g15", "metric": "agreement"}
    tasks = [
        {"task": "upstream", "options": {"preset": "nano", **common}, "recipe": recipe | {"optimizer": kind}}
        | {"backbones": [flexible]}
        for kind in ("adamw", "muon")
    ]
    tasks.append({"task": "upstream", "options": {**common, **teacher}, "recipe": recipe, "backbones": [distilled]})
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({"name": "small", "eval": [4, 8, 15], "tasks": tasks}))
    said: list[str] = []
    AcceleratorState._reset_state(reset_partial_state=True)
    options = RunOptions(device=device.type, workers=2)
    store = Store(tmp_path / "out")
    summary = Runner(load_suite(str(tmp_path / "small.yaml"), tmp_path), store, tmp_path, options, said.append).run()
    AcceleratorState._reset_state(reset_partial_state=True)
    assert not summary.failed and not summary.blocked and len(summary.ran) == 3, (summary.lines(), said)
    assert not any("read for each step instead" in line for line in said)
    assert all(row["status"] == "ok" and len(row["training"]["losses"]) == 6 for row in store.rows())


def test_compiled_training_falls_back_at_no_grid(device) -> None:
    """Past its limit torch would go on eagerly without a word; here it fails instead."""
    schedule = parse_schedule("random:1,2,3,4,6,8,12")
    with torch._dynamo.config.patch(recompile_limit=1, fail_on_recompile_limit_hit=True):
        compiled = trained(device, schedule, compile=True)
    assert compiled.losses == pytest.approx(trained(device, schedule).losses, rel=1e-3)


def test_crops_are_distorted_as_on_a_cpu(device) -> None:
    images = torch.randint(0, 256, (8, 3, 64, 64), dtype=torch.uint8)
    drawn = draw_distortion(8, torch.Generator().manual_seed(0))
    found, expected = distort(images.to(device), drawn.to(device)).cpu().int(), distort(images, drawn).int()
    # products are rounded once or twice, so a value may be one further on, and its hue one of 180
    assert ((found - expected).abs() > 2).float().mean() < 1e-3


def test_a_sweep_in_bfloat16_over_joined_batches_is_that_of_a_cpu(device) -> None:
    torch.manual_seed(0)
    task = Toy()
    model = task.model(tiny())
    views = task.views([2, 4, 6])
    here = sweep(task, model, views, "test")
    there = sweep(
        task, model.to(device), views, "test", device=device, batch=4, token_budget=64, bfloat16=True,
        autocast=lambda: torch.autocast(device.type, torch.bfloat16),
    )  # fmt: skip
    assert there.bfloat16 and not there.notes
    for (_, a, _), (_, b, _) in zip(here.rows, there.rows, strict=True):
        assert a == pytest.approx(b, abs=0.1)
