"""A task that is not part of the project: which quarter of a grey picture is bright? Nothing to download."""

import os
import time
from dataclasses import dataclass

import torch
from torch import nn

from tasks import Options, Recipe, Task, TaskCard, option
from tasks.contract.meters import ScoredRecords


class Quarters(torch.utils.data.Dataset):
    def __init__(self, first, count):
        self.first, self.count = first, count

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        noise = torch.Generator().manual_seed(self.first + i)
        image, label = torch.randint(0, 120, (3, 24, 24), generator=noise, dtype=torch.uint8), (self.first + i) % 4
        image[:, label // 2 * 12 :, label % 2 * 12 :][:, :12, :12] += 60
        return image, label


class Toy(Task):
    @dataclass(frozen=True)
    class Options(Options):
        noise: float = option(0.0, "train", "noise on the features in training")

    card = TaskCard("toy", "v1", "top1", image_size=24, splits={"train": 64, "minival": 16, "test": 32})
    recipe = Recipe(steps=20, batch=8, lr=0.05, warmup=2)

    def dataset(self, split):
        return Quarters({"train": 0, "minival": 1000, "test": 2000}[split], self.card.splits[split])

    def model(self, backbone):
        model = nn.Module()
        model.backbone, model.head = backbone, nn.Linear(backbone.embed_dim, 4)
        return model

    def loss(self, model, batch, grid):
        time.sleep(float(os.environ.get("TOY_PAUSE", 0)))
        features = model.backbone(batch.images, grid).pooled
        features = features + self.options.noise * torch.randn_like(features)
        return {"loss": nn.functional.cross_entropy(model.head(features), batch.targets), "count": len(batch)}

    def predict(self, model, batch, grid, prepared):
        best = model.head(model.backbone(batch.images, grid).pooled).argmax(1)
        return {"best": best, "right": best == batch.targets}

    def meter(self, split):
        return ScoredRecords(lambda records: {"top1": float(records["right"].double().mean())}, split)
