"""One pass over the data under many views is the same as a pass for each."""

import pytest
import runner_tools  # noqa: F401  (makes the plug-in importable)
import torch
from flexivit_toy import Toy
from tiny_backbone import tiny

from benchmarks.engine.batches.evaluation import Numbered, eval_batches
from benchmarks.engine.sweep import sweep
from tasks.contract import Task, TaskError, View


@pytest.fixture
def toy() -> tuple[Toy, torch.nn.Module]:
    torch.manual_seed(0)
    task = Toy()
    return task, task.model(tiny())


def test_one_pass_equals_separate_passes_bit_for_bit(toy) -> None:
    task, model = toy
    views = task.views([2, 3, 4, 6, 8])
    task.predict = lambda m, b, g, p: {"logits": m.head(m.backbone(b.images, g).pooled), "right": b.targets == 0}
    for budget in (None, 50):
        together = sweep(task, model, views, "test", batch=10, token_budget=budget)
        assert together.images == 32 and len(together.rows) == 5
        for view, metrics, samples in together.rows:
            (_, alone, alone_samples) = sweep(task, model, [view], "test", batch=10, token_budget=budget).rows[0]
            assert alone == metrics and samples["ids"].tolist() == list(range(32))
            assert torch.equal(samples["logits"], alone_samples["logits"])


def test_a_token_budget_cuts_batches(toy) -> None:
    task, model = toy
    sizes: list[tuple[int, int]] = []
    plain = Toy.predict

    def counted(model, batch, grid, prepared):
        sizes.append((grid[0], len(batch)))
        return plain(task, model, batch, grid, prepared)

    task.predict = counted
    sweep(task, model, task.views([2, 6]), "test", batch=16, token_budget=72)
    assert {n for g, n in sizes if g == 2} == {16} and {n for g, n in sizes if g == 6} == {2}


def test_out_of_memory_halves_and_repeats(toy) -> None:
    task, model = toy
    expected = sweep(task, model, task.views([2, 4]), "test", batch=16).rows
    plain = Toy.predict

    def tight(model, batch, grid, prepared):
        if len(batch) * grid[0] ** 2 > 70:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return plain(task, model, batch, grid, prepared)

    task.predict = tight
    found = sweep(task, model, task.views([2, 4]), "test", batch=16)
    assert len(found.notes) == 2 and "halved" in found.notes[0]
    assert [r[1] for r in found.rows] == [r[1] for r in expected]

    def never(*_):
        raise RuntimeError("out of memory")

    task.predict = never
    with pytest.raises(RuntimeError, match="out of memory"):
        sweep(task, model, task.views([2]), "test")


def test_processes_share_a_split_without_padding_or_repeats() -> None:
    task = Toy()
    shares = [[i for b in eval_batches(task, "test", 5, rank=r, world=3) for i in b.ids.tolist()] for r in range(3)]
    assert sorted(sum(shares, [])) == list(range(32))


def test_an_empty_split_is_an_error(toy, monkeypatch) -> None:
    task, model = toy
    monkeypatch.setattr(Task, "dataset", lambda self, split: [], raising=True)
    monkeypatch.setattr(Toy, "dataset", lambda self, split: [])
    with pytest.raises(TaskError, match="empty"):
        sweep(task, model, [View((2, 2))], "test")
    assert len(Numbered([])) == 0
