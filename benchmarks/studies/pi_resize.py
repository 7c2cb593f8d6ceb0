"""A fixed model while its patch is resized: with the image (grid kept) and without (FlexiViT's ablation of the resize).

python -m benchmarks.studies.pi_resize --backbone vit_nano_g15 --data DATA/pretrain --out results/runs/studies/pi_resize
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backbones import build_backbone
from backbones.grids import METHODS, Grid, patch_size
from backbones.resize import interpolation_matrix
from benchmarks.cli.errors import run_script
from benchmarks.report.published import published
from benchmarks.studies.pictures import validation_pictures
from benchmarks.studies.settings import study_main

PUBLISHED = {"together": "resized with", "alone": "fixed at"}  # how their notes in benchmarks/published tell the modes
MODES = {"together": "image resized with the patch", "alone": "image kept, patch resized"}


@dataclass(frozen=True)
class Settings:
    """`together`, `alone`: square patches in pixels for each mode.

    `filter`: bilinear (official) or bicubic, of kernels, positions and images. `crop`: part of the shorter side that is
    evaluated (timm's crop_pct).
    """

    backbone: str = "vit_nano_g8"
    filter: str = "bilinear"
    crop: float = 1.0
    pictures: int = 1000
    together: list[int] = field(default_factory=lambda: [10, 15, 30])
    alone: list[int] = field(default_factory=lambda: [10, 15, 30])


def resize_images(images: Tensor, size: tuple[int, int], filter: str = "bilinear") -> Tensor:
    """`[B, C, h, w]` float to `[B, C, *size]` by the interpolation that the kernel's resize is made for."""
    vertical = interpolation_matrix(images.shape[-2], size[0], filter).to(images)
    horizontal = interpolation_matrix(images.shape[-1], size[1], filter).to(images)
    return vertical @ images @ horizontal.T


def whole_patches(images: Tensor, patch: int) -> tuple[Tensor, Grid]:
    """As much of `[B, C, h, w]` as patches cover, and their grid: pixels over at the right and below are dropped.

    A strided convolution does so (the official model too), where a patch does not divide the picture.

    Example: `whole_patches(torch.zeros(1, 3, 224, 224), 10)[1] == (22, 22)`
    """
    at = (images.shape[-2] // patch, images.shape[-1] // patch)
    if min(at) < 1:
        raise ValueError(f"patch {patch} is larger than the image of {images.shape[-2]}x{images.shape[-1]} px")
    return images[..., : at[0] * patch, : at[1] * patch], at


def resize_patchwise(images: Tensor, old: tuple[int, int], new: tuple[int, int], filter: str = "bilinear") -> Tensor:
    """Resize each patch of `old` pixels by itself to `new`: the case in which PI-resize is exact going up."""
    batch, channels, height, width = images.shape
    patches = images.reshape(batch, channels, height // old[0], old[0], width // old[1], old[1]).transpose(3, 4)
    resized = resize_images(patches.flatten(0, 3)[:, None], new, filter)
    resized = resized.reshape(batch, channels, height // old[0], width // old[1], *new).transpose(3, 4)
    return resized.reshape(batch, channels, height // old[0] * new[0], width // old[1] * new[1])


@torch.no_grad()
def run(settings: Settings, data: Path, out: Path, device: str) -> dict[str, Any]:
    """Top-1, and agreement with the model's own prediction at its native patch, for each mode, patch and method."""
    encoder = build_backbone(settings.backbone, filter=settings.filter, position_filter=settings.filter)
    if getattr(encoder, "head", None) is None:
        raise ValueError(f"backbone {settings.backbone!r} has no classifier; choose one with a head, as vit_nano_g8")
    encoder = encoder.fixed_at_native_grid().to(device).eval()
    grid, side = encoder.native_grid, encoder.image_size
    native = patch_size(side, grid)
    views = [(m, p, method) for m in MODES for p in getattr(settings, m) for method in METHODS]
    right, same = dict.fromkeys(views, 0), dict.fromkeys(views, 0)
    count, native_right, patchwise = 0, 0, 0.0
    for uint8, labels in validation_pictures(data, settings.pictures, side[0], settings.crop):
        images, labels = encoder.normalise(uint8.to(device)), labels.to(device)
        if count == 0:
            encoder.calibrate(images)
        logits = encoder.head(encoder(images, grid).pooled)
        own = logits.argmax(1)
        if count == 0:  # the theorem, on real pictures
            bigger = resize_patchwise(images, native, (native[0] * 2, native[1] * 2), settings.filter)
            patchwise = float((encoder.head(encoder(bigger, grid).pooled) - logits).abs().max())
        for view in views:
            mode, patch, method = view
            found = own
            if (patch, patch) != native or method == "norm":  # `norm` rescales tokens at the native patch too
                if mode == "alone":
                    resized, at = whole_patches(images, patch)
                else:
                    resized, at = resize_images(images, (grid[0] * patch, grid[1] * patch), settings.filter), grid
                found = encoder.head(encoder(resized, at, method).pooled).argmax(1)
            right[view] += int((found == labels).sum())
            same[view] += int((found == own).sum())
        count, native_right = count + len(labels), native_right + int((own == labels).sum())
    rows = [
        {"mode": m, "patch": p, "method": k, "top1": right[m, p, k] / count, "agreement": same[m, p, k] / count}
        for m, p, k in views
    ]
    rows += published_rows(settings)
    result = {"pictures": count, "native_patch": list(native), "native_top1": native_right / count,
              "patchwise_logit_difference": patchwise, "rows": rows}  # fmt: skip
    (out / "table.md").write_text(table(result), encoding="utf-8")
    plot(result, settings.backbone, out / "pi_resize.png")
    return result


def published_rows(settings: Settings) -> list[dict[str, Any]]:
    """What others have for these weights, filter and patches (`benchmarks/published`): rows of `pi, published`."""
    if settings.filter != "bicubic":
        return []
    numbers = {
        (mode, patch): number.value / 100
        for number in published()
        if number.backbone == settings.backbone and number.value is not None
        for mode in MODES for patch in getattr(settings, mode)
        if number.note.startswith(f"PI-resized (bicubic, antialiased) to patch {patch}, image {PUBLISHED[mode]}")
    }  # fmt: skip
    return [
        {"mode": mode, "patch": patch, "method": "pi, published", "top1": value, "agreement": None}
        for (mode, patch), value in numbers.items()
    ]


def _cell(row: dict[str, Any]) -> str:
    return f"{100 * row['top1']:.1f}" + ("" if row["agreement"] is None else f" / {100 * row['agreement']:.0f}")


def table(result: dict[str, Any]) -> str:
    """Markdown: for each mode a row a method, a column a patch, `top-1 / agreement` in percent."""
    lines: list[str] = []
    for mode, title in MODES.items():
        rows = [r for r in result["rows"] if r["mode"] == mode]
        patches = list(dict.fromkeys(r["patch"] for r in rows))
        lines += [f"{title.capitalize()}: top-1 / same answer as at the native patch, %", ""]
        lines += ["| method | " + " | ".join(f"{p} px" for p in patches) + " |", "| --- |" + " ---: |" * len(patches)]
        for method in dict.fromkeys(r["method"] for r in rows):
            cells = {r["patch"]: _cell(r) for r in rows if r["method"] == method}
            lines.append(f"| {method} | " + " | ".join(cells.get(p, "") for p in patches) + " |")
        lines.append("")
    return "\n".join(lines)


def plot(result: dict[str, Any], name: str, path: Path) -> None:
    """Top-1 (above) and agreement (below) against the patch, a column a mode."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(8.4, 5.6), sharex="col", sharey="row")
    colours = dict(zip(METHODS, ("#1b6ca8", "#c8553d", "#588157", "#8d6a9f"), strict=True))
    for column, (mode, title) in enumerate(MODES.items()):
        axes[0, column].set_title(title, fontsize=10)
        for method in METHODS:
            rows = [r for r in result["rows"] if r["mode"] == mode and r["method"] == method]
            patches = [r["patch"] for r in rows]
            for line, key in enumerate(("top1", "agreement")):
                values = [100 * r[key] for r in rows]
                axes[line, column].plot(patches, values, marker="o", color=colours[method], label=method)
        for axis in axes[:, column]:
            axis.axvline(result["native_patch"][0], color="grey", linewidth=0.8, linestyle=":")
            axis.spines[["top", "right"]].set_visible(False)
        axes[1, column].set_xlabel("patch, px (dotted: native)")
    for axis in axes[:, 0]:  # after all lines are there: a limit stops the scaling of the shared axis
        axis.set_ylim(0)
    axes[0, 0].set_ylabel("top-1, %")
    axes[1, 0].set_ylabel("same answer as native, %")
    figure.suptitle(f"{name}, fixed at its native grid", fontsize=10)
    figure.tight_layout(rect=(0, 0, 1, 0.94))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 0.96))
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    run_script(functools.partial(study_main, "pi_resize"))
