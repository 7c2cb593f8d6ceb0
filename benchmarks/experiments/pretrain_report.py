"""Table and plot of top-1 at every grid from the results of `benchmarks.experiments.pretrain`.

python -m benchmarks.experiments.pretrain_report results/runs/pretrain results/measured/nano
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

LABELS = {
    "flexivit_nano": "FlexiViT nano (random grids)",
    "vit_nano_g15": "ViT nano fixed at grid 15",
    "vit_nano_g8": "ViT nano fixed at grid 8",
}


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """Results by model name. Raises ValueError where one is missing or the budgets differ."""
    results = {}
    for name in LABELS:
        file = folder / f"{name}.json"
        if not file.exists():
            raise ValueError(f"no {file}; make it with: python -m benchmarks.experiments.pretrain {name}")
        results[name] = json.loads(file.read_text(encoding="utf-8"))
    budgets = {name: r["images"] for name, r in results.items()}
    if len(set(budgets.values())) != 1:
        raise ValueError(f"budgets differ and cannot be compared: {budgets}")
    return results


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: a row a model, a column a grid, top-1 in percent."""
    grids = list(next(iter(results.values()))["top1"])
    lines = ["| model | " + " | ".join(f"{g}x{g}" for g in grids) + " | worst / best |"]
    lines.append("| --- |" + " ---: |" * (len(grids) + 1))
    for name, result in results.items():
        values = [result["top1"][g] for g in grids]
        cells = " | ".join(f"{100 * v:.1f}" for v in values)
        lines.append(f"| {LABELS[name]} | {cells} | {min(values) / max(values):.2f} |")
    return "\n".join(lines)


def plot(results: dict[str, dict[str, Any]], path: Path, pictures: int = 5000) -> None:
    """Top-1 against grid with the standard error of `pictures` validation pictures."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4))
    for (name, result), colour in zip(results.items(), ("#1b6ca8", "#c8553d", "#588157"), strict=True):
        grids = [int(g) for g in result["top1"]]
        values = [result["top1"][str(g)] for g in grids]
        errors = [100 * (v * (1 - v) / pictures) ** 0.5 for v in values]
        percent = [100 * v for v in values]
        axes.errorbar(grids, percent, errors, marker="o", capsize=2, color=colour, label=LABELS[name])
    axes.axhline(1, color="grey", linewidth=0.8, linestyle=":")
    axes.annotate("chance", (grids[0], 1), xytext=(0, 3), textcoords="offset points", fontsize=8, color="grey")
    axes.set(xlabel="evaluation grid (tokens per side, 120 px)", ylabel="top-1, %", xticks=grids, ylim=0)
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main() -> None:
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    results = read_results(source)
    target.mkdir(parents=True, exist_ok=True)
    first = next(iter(results.values()))
    revision = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, encoding="utf-8", errors="replace"
    ).stdout.strip()
    options = " ".join(f"--{k} {first[k]}" for k in ("images", "batch", "lr", "decay", "warmup", "seed"))
    text = [
        "# Nano models: top-1 at every grid\n",
        "Tiny ImageNet, 100 classes, 5,000 validation pictures;",
        f"each model saw {first['images']:,} training images.\n",
        table(results),
        "\nStandard error at 7 %: 0.4 points. Chance: 1 %.\n\n![top-1 against grid](top1.png)\n",
        f"Made with `python -m benchmarks.experiments.pretrain NAME --data DATA/pretrain {options}` for each name,",
        f"then `python -m benchmarks.experiments.pretrain_report`, revision {revision or 'unknown'}, {date.today()},",
        f"{platform.machine()} {platform.system()}, {first['device']}, torch {first['torch']}.",
        "Hours: " + ", ".join(f"{n} {r['hours_this_process']:.2f}" for n, r in results.items()) + ".\n",
    ]
    (target / "README.md").write_text("\n".join(text), encoding="utf-8")
    (target / "top1.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    plot(results, target / "top1.png")


if __name__ == "__main__":
    main()
