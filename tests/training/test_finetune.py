"""The training loop: exact resume, exact accumulation, clipping, schedules."""

import dataclasses

import pytest
import runner_tools  # noqa: F401  (makes the plug-in importable)
import torch
from accelerate import Accelerator
from flexivit_toy import Toy
from tiny_backbone import tiny

from backbones.grids import GridSchedule, parse_schedule
from benchmarks.engine.finite import Diverged
from benchmarks.engine.randomness import seed_of, training_indices
from benchmarks.engine.training.loop import finetune
from benchmarks.engine.training.optimizers import Averaged, lr_factor, parameter_groups
from tasks.contract import Recipe, TaskError

FOUR = GridSchedule("fixed", ((4, 4),))
RECIPE = Recipe(steps=8, batch=8, lr=0.05, warmup=2, weight_decay=0.01, optimizer="adamw", ema=0.9, drop_path=0.2)


def train(recipe: Recipe = RECIPE, schedule: GridSchedule = FOUR, seed: int = 0, **more):
    torch.manual_seed(0)
    task = Toy(options={"noise": 0.1}, seed=seed)
    model = task.model(tiny(drop_path=recipe.drop_path))
    training = finetune(task, model, recipe, schedule, Accelerator(cpu=True), seed=seed, **more)
    return model, training


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path) -> None:
    schedule = parse_schedule("random:2,4,6")
    whole, told = train(schedule=schedule)

    class Killed(Exception):
        pass

    for stop in (3, 6, 7):

        def kill(step: int, *_: object, stop: int = stop) -> None:
            if step == stop + 1:  # the checkpoint of `stop` is written, the next step is lost
                raise Killed

        with pytest.raises(Killed):
            train(schedule=schedule, checkpoint=tmp_path / "c.pt", every_seconds=0, progress=kill)
    resumed, retold = train(schedule=schedule, checkpoint=tmp_path / "c.pt", every_seconds=0)
    assert same(whole, resumed) and told.losses == retold.losses
    assert retold.resumed_at == [3, 6, 7] and retold.steps == 8


def test_workers_change_nothing() -> None:
    assert same(train()[0], train(workers=2)[0])


def test_seeds_change_the_run() -> None:
    assert not same(train()[0], train(seed=1)[0])


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path) -> None:
    train(checkpoint=tmp_path / "c.pt")
    with pytest.raises(TaskError, match="another recipe"):
        train(dataclasses.replace(RECIPE, lr=0.01), checkpoint=tmp_path / "c.pt")


def test_ctrl_c_writes_the_checkpoint_first(tmp_path) -> None:
    import os
    import signal

    def stop(step: int, *_: object) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(checkpoint=tmp_path / "c.pt", every_seconds=1e9, progress=stop)
    resumed, told = train(checkpoint=tmp_path / "c.pt")
    assert told.resumed_at == [3] and same(resumed, train()[0])


class Weighted(Toy):
    """Its loss is a mean over some samples only, as a mean over labelled pixels is."""

    def loss(self, model, batch, grid):
        counted = batch.targets < 2
        logits = model.head(model.backbone(batch.images, grid).pooled)
        losses = torch.nn.functional.cross_entropy(logits, batch.targets, reduction="none")
        return {"loss": losses[counted].sum() / counted.sum().clamp_min(1), "count": counted.sum()}


def weighted(**more):
    torch.manual_seed(0)
    task = Weighted()
    model = task.model(tiny())
    recipe = Recipe(steps=3, batch=16, lr=0.5, clip=None, **more)
    finetune(task, model, recipe, FOUR, Accelerator(cpu=True))
    return model


def test_micro_batches_combine_by_count() -> None:
    whole, pieces = weighted(), weighted(accumulate=4)
    for a, b in zip(whole.parameters(), pieces.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_clipping_each_example_is_not_clipping_their_sum() -> None:
    recipe = Recipe(steps=1, batch=8, lr=1.0, clip=0.05)
    start = dict(train(dataclasses.replace(recipe, lr=0.0))[0].named_parameters())

    def moved(recipe: Recipe) -> torch.Tensor:
        model = train(recipe)[0]
        return torch.cat([(p - start[n]).detach().flatten() for n, p in model.named_parameters()])

    whole, each = moved(recipe), moved(dataclasses.replace(recipe, clip_per_example=True))
    assert whole.norm() == pytest.approx(0.05, rel=1e-4)  # one step of SGD at rate 1 is the clipped gradient
    assert 0 < each.norm() < 0.05  # a mean of vectors of at most 0.05 that do not agree
    loose, loose_each = (moved(dataclasses.replace(recipe, clip=1e6, clip_per_example=e)) for e in (False, True))
    torch.testing.assert_close(loose, loose_each, rtol=1e-3, atol=1e-5)


def test_learning_rate_follows_the_official_schedule() -> None:
    recipe = Recipe(steps=100, warmup=10)
    assert [lr_factor(recipe, s) for s in (0, 5, 10, 55, 100)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    poly = Recipe(steps=100, schedule="poly")
    assert lr_factor(poly, 0) == 1 and lr_factor(poly, 50) == pytest.approx(0.5**0.9)


def test_groups_by_prefix_and_decay() -> None:
    model = Toy().model(tiny())
    recipe = Recipe(steps=1, lr=0.1, weight_decay=0.5, lr_groups={"backbone": 0.1, "backbone.trunk.norm": 0.0})
    groups = parameter_groups(model, recipe)
    rate = {id(p): (g["peak_lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    trunk = model.backbone.trunk
    assert rate[id(model.head.weight)] == (0.1, 0.5) and rate[id(model.head.bias)] == (0.1, 0.0)
    assert rate[id(trunk.patch_embed.proj.weight)] == (pytest.approx(0.01), 0.5)
    assert rate[id(trunk.pos_embed)] == (pytest.approx(0.01), 0.0)
    assert id(trunk.norm.weight) not in rate and trunk.norm.weight.requires_grad  # locked, though nobody froze it
    with pytest.warns(UserWarning, match="hed"):
        parameter_groups(model, Recipe(steps=1, lr_groups={"hed": 10.0}))


def test_averaged_weights_follow_slowly() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    average = Averaged(model, 0.9)
    torch.nn.init.ones_(model.weight)
    for step in range(1000, 1010):
        average.update(model, step)
    assert average.values["weight"].item() == pytest.approx(1 - 0.9**10, rel=1e-5)


def test_a_loss_that_is_no_number_stops_the_run() -> None:
    with pytest.raises(Diverged, match="learning rate"):
        train(Recipe(steps=20, batch=8, lr=1e30, clip=None))


@pytest.mark.parametrize("change", [{"optimizer": "sdg"}, {"schedule": "linear"}, {"batch": 0}, {"ema": 1.0}])
def test_recipes_that_cannot_be(change: dict) -> None:
    with pytest.raises(TaskError, match="|".join(change)):
        train(dataclasses.replace(RECIPE, **change))


def test_epochs_are_whole_and_differ() -> None:
    seen = [i for step in range(4) for i in training_indices(0, step, 5, 10)]
    assert (
        sorted(i for i, epoch in seen if epoch == 0) == sorted(i for i, epoch in seen if epoch == 1) == list(range(10))
    )
    assert seen[:10] != [(i, 0) for i, _ in seen[10:]]
    assert seed_of("batch", 0, 1) != seed_of("batch", 1, 0) != seed_of("sample", 1, 0)


@pytest.mark.slow
def test_compiled_training_never_falls_back_to_eager() -> None:
    """More grids than torch would trace by itself; past its limit torch is told here to fail instead of going on."""
    told = torch._dynamo.config.patch(recompile_limit=1, fail_on_recompile_limit_hit=True)
    with told, torch._inductor.config.patch(fallback_random=True):  # else it draws other noise and drops other paths
        eager, compiled = (train(schedule=parse_schedule("random:1,2,4"), compile=on)[1].losses for on in (False, True))
    assert compiled == pytest.approx(eager, rel=1e-4)
