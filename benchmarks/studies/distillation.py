"""A fixed teacher distilled into a flexible student that starts as its resized copy: top-1 at each grid, before, after.

python -m benchmarks.studies.distillation --data DATA/pretrain --out results/runs/studies/distillation
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from backbones import FlexiBackbone, build_backbone
from backbones.grids import GridSchedule
from backbones.shape import VitShape
from backbones.zoo.files import HALF, save_safetensors, vit_trunk
from benchmarks.distill import distill, initialise_from_teacher, kl_divergence
from benchmarks.pretrain_data import load_tiny_imagenet
from benchmarks.pretrain_recipes import recipe
from benchmarks.studies.pi_resize import fix_at_native_grid
from benchmarks.studies.pictures import validation_pictures
from benchmarks.studies.settings import study_main


@dataclass(frozen=True)
class Settings:
    """Constants of `recipe`, with what a scale changes; the student has the teacher's architecture and base patch."""

    recipe: str = "i1k_deit3_distill"
    teacher: str = "vit_nano_g15"
    grids: list[int] = field(default_factory=lambda: [4, 5, 6, 8, 10, 12, 15])
    steps: int = 120
    batch: int = 32
    warmup: int = 10
    learning_rate: float = 1e-4
    seed: int = 0
    pictures: int = 1000


def student_of(teacher: FlexiBackbone, position_grid: int) -> FlexiBackbone:
    """A big_vision-style ViT of the teacher's shape, image size and base patch that starts from its weights."""
    trunk = teacher.trunk
    shape = VitShape(
        width=trunk.embed_dim, depth=len(trunk.blocks), heads=trunk.blocks[0].attn.num_heads,
        mlp=trunk.blocks[0].mlp.fc1.out_features, patch=tuple(teacher.base_kernel.shape[-2:]),
        positions=(position_grid, position_grid), class_token=trunk.cls_token is not None,
        pool=trunk.global_pool, classes=trunk.num_classes,
    )  # fmt: skip
    student = FlexiBackbone(vit_trunk(shape), HALF, teacher.image_size, teacher.native_grid)
    initialise_from_teacher(student, teacher)
    return student


@torch.no_grad()
def score(model: FlexiBackbone, teacher: FlexiBackbone, settings: Settings, data: Path) -> dict[str, dict[str, float]]:
    """By grid: top-1, share of the teacher's answers, and mean KL to the teacher, all in natural units (0-1, nats)."""
    model.eval()
    device = model.base_kernel.device
    sums = {str(g): torch.zeros(3, dtype=torch.float64) for g in settings.grids}
    count = 0
    for images, labels in validation_pictures(data, settings.pictures, teacher.image_size[0]):
        target = teacher.head(teacher(images.to(device), teacher.native_grid).pooled).cpu()
        resized = F.interpolate(images.float(), size=model.image_size, mode="bilinear", antialias=True)
        own = resized.round().clamp(0, 255).to(torch.uint8).to(device)
        for grid in settings.grids:
            logits = model.head(model(own, grid).pooled).cpu()
            answer = logits.argmax(1)
            parts = ((answer == labels).sum(), (answer == target.argmax(1)).sum(), kl_divergence(target, logits).sum())
            sums[str(grid)] += torch.stack([p.double() for p in parts])
        count += len(labels)
    keys = ("top1", "agreement", "kl")
    return {g: dict(zip(keys, (values / count).tolist(), strict=True)) for g, values in sums.items()}


def run(settings: Settings, data: Path, out: Path, device: str) -> dict[str, Any]:
    """Initialise, score, distil, score again; writes `student.safetensors`, which `build_backbone` takes."""
    train_pictures = load_tiny_imagenet(data, "train")
    torch.manual_seed(settings.seed)
    teacher = fix_at_native_grid(build_backbone(settings.teacher)).to(device).eval().requires_grad_(False)
    official = recipe(settings.recipe)
    student = student_of(teacher, official.position_grid).to(device)
    before = score(student, teacher, settings, data)
    constants = dataclasses.replace(
        official, batch=settings.batch, warmup=settings.warmup, learning_rate=settings.learning_rate,
        weight_decay=official.torch_decay * settings.learning_rate,
    )  # fmt: skip
    schedule = GridSchedule("random", tuple(settings.grids), seed=settings.seed)
    started = time.perf_counter()
    loss = distill(student, teacher, train_pictures, schedule, constants, settings.steps, out / "checkpoint.pt",
                   settings.seed)  # fmt: skip
    seconds = time.perf_counter() - started
    after = score(student, teacher, settings, data)
    notes = {"recipe": settings.recipe, "teacher": settings.teacher, "steps": settings.steps}
    save_safetensors(student, out / "student.safetensors", training=notes)
    result = {"before": before, "after": after, "loss": loss, "seconds_this_process": seconds}
    (out / "table.md").write_text(table(result))
    plot(result, settings.teacher, out / "distillation.png")
    return result


def table(result: dict[str, Any]) -> str:
    """Markdown: a row a measure before and after, a column a grid."""
    grids = list(result["before"])
    lines = ["| student | " + " | ".join(f"{g}x{g}" for g in grids) + " |", "| --- |" + " ---: |" * len(grids)]
    for key, name, factor in (("top1", "top-1, %", 100), ("agreement", "teacher's answer, %", 100), ("kl", "KL", 1)):
        for when in ("before", "after"):
            cells = " | ".join(f"{factor * result[when][g][key]:.{1 if factor == 100 else 3}f}" for g in grids)
            lines.append(f"| {name}, {when} | {cells} |")
    return "\n".join(lines) + "\n"


def plot(result: dict[str, Any], teacher: str, path: Path) -> None:
    """Top-1 and agreement with the teacher at each grid, before and after."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, both = plt.subplots(1, 2, figsize=(8.4, 3.6))
    grids = [int(g) for g in result["before"]]
    for axes, (key, label) in zip(both, (("top1", "top-1, %"), ("agreement", "teacher's answer, %")), strict=True):
        for when, colour in (("before", "#c8553d"), ("after", "#1b6ca8")):
            values = [100 * v[key] for v in result[when].values()]
            axes.plot(grids, values, marker="o", color=colour, label=f"{when} distillation")
        axes.set(xlabel="grid (tokens per side)", ylabel=label, xticks=grids, ylim=0)
        axes.spines[["top", "right"]].set_visible(False)
    both[0].legend(frameon=False, loc="lower left")
    figure.suptitle(f"Flexible student that starts as a resized copy of {teacher}", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    study_main("distillation")
