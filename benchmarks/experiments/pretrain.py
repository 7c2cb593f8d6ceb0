"""Train a nano backbone from scratch at a grid schedule on Tiny ImageNet.

    python -m benchmarks.experiments.pretrain flexivit_nano --data DATA/pretrain --images 25600 --out OUT

DATA is a folder with the parquet pack (`tinyimagenet100_*.parquet`) or the official `tiny-imagenet-200` folder. Killed
at any moment, the same command continues from its last checkpoint, step for step.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from backbones import FlexiBackbone, build_backbone
from backbones.grids import NANO_GRIDS, parse_schedule
from backbones.weights.own import save_backbone
from benchmarks.experiments.pretrain_data import Pictures, load_tiny_imagenet

SCHEDULES = {
    "flexivit_nano": "random:" + ",".join(map(str, NANO_GRIDS)),
    "vit_nano_g15": "15",
    "vit_nano_g8": "8",
}


def augment(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Random crop (area 50-100 %), flip and resize: uint8 `[B, 3, h, w]` to float 0-255 `[B, 3, size, size]`."""
    count = len(images)
    area = torch.empty(count).uniform_(0.5, 1.0, generator=generator)
    aspect = torch.empty(count).uniform_(math.log(3 / 4), math.log(4 / 3), generator=generator).exp()
    height, width = (area / aspect).sqrt().clamp(max=1), (area * aspect).sqrt().clamp(max=1)
    centre_y = (torch.rand(count, generator=generator) * 2 - 1) * (1 - height)
    centre_x = (torch.rand(count, generator=generator) * 2 - 1) * (1 - width)
    flip = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    zero = torch.zeros(count)
    rows = [torch.stack([width * flip, zero, centre_x], 1), torch.stack([zero, height, centre_y], 1)]
    field = F.affine_grid(torch.stack(rows, 1), [count, 3, size, size], align_corners=False)
    return F.grid_sample(images.float(), field, padding_mode="reflection", align_corners=False)


def learning_rate(step: int, total: int, warmup: int, base: float) -> float:
    """Linear warm-up, then cosine to zero; `step` counts from 0 (big_vision's 0-based schedule)."""
    progress = min(max((step - warmup) / max(total - warmup, 1), 0.0), 1.0)
    return base * min(1.0, step / max(warmup, 1)) * 0.5 * (1 + math.cos(math.pi * progress))


def parameter_groups(model: torch.nn.Module, decay: float) -> list[dict]:
    """Kernels decay; biases, norms, positions and tokens never do (big_vision `.*/kernel$`)."""
    kernels = [p for n, p in model.named_parameters() if n.endswith("weight") and p.ndim > 1]
    chosen = {id(p) for p in kernels}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [{"params": kernels, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]


@torch.no_grad()
def accuracy(model: FlexiBackbone, pictures: Pictures, grids: Sequence[int], batch: int = 100) -> dict[str, float]:
    """Top-1 at every grid, one pass over the pictures."""
    model.eval()
    device = model.base_kernel.device
    right = dict.fromkeys(map(str, grids), 0)
    for start in range(0, len(pictures.labels), batch):
        images = pictures.images[start : start + batch].to(device).float()
        size = model.image_size
        resized = F.interpolate(images, size=size, mode="bilinear", align_corners=False).clamp(0, 255).to(torch.uint8)
        labels = pictures.labels[start : start + batch].to(device)
        for grid in grids:
            right[str(grid)] += int((model.head(model(resized, grid).pooled).argmax(1) == labels).sum())
    return {grid: count / len(pictures.labels) for grid, count in right.items()}


def train(
    name: str,
    pictures: Pictures,
    options: argparse.Namespace,
    after_step: Callable[[FlexiBackbone, int], None] | None = None,
) -> FlexiBackbone:
    """Train to the end, from the newest checkpoint where there is one; `after_step(model, steps done)` may look on."""
    torch.manual_seed(options.seed)
    model = build_backbone(name, pretrained=False, num_classes=len(pictures.classes)).to(options.device)
    torch.nn.init.normal_(model.head.weight, std=0.01)
    optimizer = torch.optim.AdamW(parameter_groups(model, options.decay), lr=options.lr, betas=(0.9, 0.99))
    schedule = parse_schedule(options.schedule or SCHEDULES[name], seed=options.seed)
    total, first = options.images // options.batch, 0
    checkpoint = options.out / f"{name}.checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=options.device, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
        print(f"continuing {name} at step {first} of {total}")
    model.train()
    started, mean_loss = time.time(), 0.0
    for step in range(first, total):
        # batch and augmentation are functions of (seed, step): a resumed run repeats them exactly
        generator = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
        order = torch.Generator().manual_seed(options.seed + step * options.batch // len(pictures.labels))
        begin = step * options.batch % len(pictures.labels)
        chosen = torch.randperm(len(pictures.labels), generator=order)[begin : begin + options.batch]
        images = augment(pictures.images[chosen], model.image_size[0], generator).to(options.device)
        images = (images - model._mean) / model._std
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, total, options.warmup, options.lr)
        logits = model.head(model(images, schedule.grid(step + 1, total)).pooled)
        loss = F.cross_entropy(logits, pictures.labels[chosen].to(options.device), label_smoothing=0.1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if after_step is not None:
            after_step(model, step + 1)
            model.train()
        mean_loss = loss.item() if step == first else 0.98 * mean_loss + 0.02 * loss.item()
        if not math.isfinite(mean_loss):
            raise ValueError(f"{name}: loss is {loss.item()} at step {step}; lower --lr")
        if (step + 1) % options.every == 0 or step + 1 == total:
            rate = (step + 1 - first) * options.batch / (time.time() - started)
            left = (total - step - 1) * options.batch / rate
            print(
                f"{name} {step + 1}/{total} loss {mean_loss:.3f} {rate:.0f} img/s {left / 60:.1f} min left", flush=True
            )
            partial = checkpoint.with_suffix(".part")
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}, partial)
            partial.replace(checkpoint)
    return model


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.experiments.pretrain", description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(SCHEDULES))
    parser.add_argument("--data", type=Path, required=True, help="parquet pack or tiny-imagenet-200")
    parser.add_argument("--out", type=Path, default=Path("results/runs/pretrain"))
    parser.add_argument("--images", type=int, default=25_600, help="images seen: the budget")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--decay", type=float, default=0.05)
    parser.add_argument("--warmup", type=int, default=50, help="steps")
    parser.add_argument("--schedule", help="15, random:4,5,6 or curriculum:4,8,15; default: the model's own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=50, help="steps between checkpoints")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    started = time.time()
    model = train(options.name, load_tiny_imagenet(options.data, "train"), options)
    hours = (time.time() - started) / 3600
    top1 = accuracy(model, load_tiny_imagenet(options.data, "val"), NANO_GRIDS)
    keep = ("name", "images", "batch", "lr", "decay", "warmup", "seed", "schedule")
    notes = {k: v for k, v in vars(options).items() if k in keep}
    save_backbone(model, options.out / f"{options.name}.safetensors", training=notes)
    result = {**notes, "top1": top1, "hours_this_process": hours, "device": options.device, "torch": torch.__version__}
    (options.out / f"{options.name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
