"""Shared by the tests of detection: a backbone of mean colours, a small text tower, a drawn data set."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from backbones.contract import Features
from tasks.detection.model.detector import Detector


class TinyBackbone(nn.Module):
    """Mean colours of patches, projected: the interface of a backbone and nothing more."""

    embed_dim = 24

    def __init__(self):
        super().__init__()
        self.project = nn.Linear(3, self.embed_dim)

    def forward(self, images, grid):
        h, w = grid
        pooled = nn.functional.adaptive_avg_pool2d(images.float() / 255, (h, w)).permute(0, 2, 3, 1)
        tokens = self.project(pooled)
        mean = tokens.mean((1, 2))
        return Features(mean, tokens, mean[:, None], mean)


def drawn(folder: Path, images: int = 5, names=("cup", "dog", "kite")) -> dict:
    rng = np.random.default_rng(0)
    data = {"images": [], "annotations": [], "categories": []}
    data["categories"] = [{"id": i + 1, "name": n, "frequency": "rcf"[i]} for i, n in enumerate(names)]
    (folder / "images").mkdir(parents=True)
    for i in range(images):
        width, height = (60, 40) if i % 2 else (40, 60)
        name = f"{i:03}.png"
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(folder / "images" / name)
        data["images"].append({
            "id": 90 - i, "file_name": name, "width": width, "height": height,
            "neg_category_ids": [3], "not_exhaustive_category_ids": [],
        })  # fmt: skip
        for c in (1, 2):
            data["annotations"].append(
                {"id": 2 * i + c, "image_id": 90 - i, "category_id": c, "bbox": [5, 6, 10 * c, 20], "area": 200.0 * c}
            )
    for split in ("train", "val"):
        (folder / f"{split}.json").write_text(json.dumps(data))
    return data


def model_of(task):
    from open_clip.transformer import TextTransformer

    torch.manual_seed(0)
    tower = TextTransformer(context_length=16, width=32, heads=2, layers=1, output_dim=16)
    return Detector(TinyBackbone(), tower, merge=task.options.merge).eval()
