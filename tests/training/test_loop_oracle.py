"""The training loop beside a plain loop in torch, and what each of its calls is there for."""

import dataclasses
from collections import Counter

import pytest
import runner_tools  # noqa: F401  (makes the plug-in importable)
import torch
from accelerate import Accelerator
from flexivit_toy import Quarters, Toy
from tiny_backbone import tiny

from backbones.grids import parse_schedule
from benchmarks.engine.randomness import training_indices
from benchmarks.engine.training.loop import finetune
from benchmarks.engine.training.optimizers import lr_factor
from tasks.contract import Batch, Recipe

RECIPE = Recipe(steps=6, batch=8, lr=0.05, warmup=2, optimizer="sgd", clip=0.5)


class Watched(Toy):
    """A toy whose pictures are augmented, and that keeps what its loss saw."""

    def __init__(self, **more):
        super().__init__(**more)
        self.grids, self.modes, self.seen = [], [], Counter()  # shared with copies of the task

    def dataset(self, split):
        task = self

        class Sampled(Quarters):
            def sample(self, i, generator):
                task.seen["drawn"] += 1
                return self[i]

        return Sampled(0, task.card.splits[split])

    def augment(self, model, batch, generator):
        self.seen["mixed"] += 1
        return Batch(batch.ids, 255 - batch.images, batch.targets)

    def loss(self, model, batch, grid):
        self.grids.append(tuple(grid))
        self.modes.append(model.training)
        self.seen["brightness"] = float(batch.images.float().mean())
        return super().loss(model, batch, grid)


def trained(task, recipe: Recipe = RECIPE, schedule: str = "4"):
    torch.manual_seed(0)
    model = task.model(tiny())
    finetune(task, model, recipe, parse_schedule(schedule), Accelerator(cpu=True), seed=0)
    return model


@pytest.mark.parametrize("change", [{}, {"accumulate": 2}, {"schedule": "poly", "end_lr": 0.02}, {"weight_decay": 0.1}])
def test_training_is_a_plain_loop_of_torch(change: dict) -> None:
    recipe, task = dataclasses.replace(RECIPE, **change), Toy()
    found = trained(task, recipe)
    torch.manual_seed(0)
    model, data = task.model(tiny()), task.dataset("train")
    model.train()
    kernels = [p for n, p in model.named_parameters() if p.ndim > 1 and n.endswith("weight")]
    rest = [p for n, p in model.named_parameters() if not (p.ndim > 1 and n.endswith("weight"))]
    groups = [{"params": kernels, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=1.0, momentum=0.9)
    for step in range(recipe.steps):
        pairs = [data[i] for i, _ in training_indices(0, step, recipe.batch, len(data))]
        batch = Batch(torch.arange(8), torch.stack([x for x, _ in pairs]), torch.tensor([y for _, y in pairs]))
        optimizer.zero_grad()
        task.loss(model, batch, (4, 4))["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * lr_factor(recipe, step)
        optimizer.step()
    for (name, own), other in zip(found.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")


def test_each_step_has_its_grid_and_its_augmentation_in_training_mode() -> None:
    task, schedule = Watched(), parse_schedule("random:2,4,6")
    trained(task, schedule="random:2,4,6")
    assert task.grids[-6:] == [schedule.grid(step, 6) for step in range(1, 7)]
    assert task.seen["mixed"] == 6 and task.seen["drawn"] >= 48 and all(task.modes)
    assert task.seen["brightness"] > 150  # the pictures are dark before the augmentation


def test_averaged_weights_are_what_is_left() -> None:
    plain, averaged = (trained(Toy(), dataclasses.replace(RECIPE, ema=ema)) for ema in (0.0, 0.9))
    start = Toy()
    torch.manual_seed(0)
    first = start.model(tiny()).head.weight
    ends = [m.head.weight for m in (plain, averaged)]
    assert not torch.equal(*ends) and (ends[1] - first).norm() < (ends[0] - first).norm()
    assert not torch.equal(ends[1], first)


def test_polynomial_rates_end_where_the_recipe_says() -> None:
    recipe = Recipe(steps=100, lr=0.001, schedule="poly", end_lr=1e-5)
    assert 0.001 * lr_factor(recipe, 100) == pytest.approx(1e-5)
    assert 0.001 * lr_factor(recipe, 50) == pytest.approx(1e-5 + (0.001 - 1e-5) * 0.5**0.9)
    assert lr_factor(dataclasses.replace(recipe, end_lr=0.0), 100) == 0
