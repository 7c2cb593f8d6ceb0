"""One pass over the data under many views is the same as a pass for each."""

import pytest
import runner_tools  # noqa: F401  (makes the plug-in importable)
import torch
from flexivit_toy import Toy
from tiny_backbone import tiny

from benchmarks.engine.batches.evaluation import MOST_JOINED, Budget, Numbered, eval_batches
from benchmarks.engine.batches.joining import Waiting, joinable, joined
from benchmarks.engine.running.options import evaluation_batch, joined_pictures, token_limit
from benchmarks.engine.sweep import sweep
from tasks.contract import Batch, Task, TaskError, View


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


def passes_of(task: Task, model: torch.nn.Module, views: list[View], **how) -> tuple[dict, list]:
    """Sizes of the passes at each grid, and what a sweep gives."""
    sizes: dict[int, list[int]] = {}
    plain = Toy.predict

    def counted(model, batch, grid, prepared):
        sizes.setdefault(grid[0], []).append(len(batch))
        found = plain(task, model, batch, grid, prepared)
        return found | {"logits": model.head(model.backbone(batch.images, grid).pooled)}

    task.predict = counted
    return sizes, sweep(task, model, views, "test", **how).rows


def test_a_token_budget_joins_batches(toy) -> None:
    task, model = toy
    views = task.views([2, 4, 8])
    plain, alone = passes_of(task, model, views, batch=6)
    sizes, together = passes_of(task, model, views, batch=6, token_budget=96)
    assert plain == {2: [6] * 5 + [2], 4: [6] * 5 + [2], 8: [6] * 5 + [2]}  # without a budget a batch is a pass
    assert sizes[2] == [24, 8] and sizes[4] == [6] * 5 + [2] and sizes[8] == [1] * 32
    few, also = passes_of(task, model, views, batch=6, token_budget=96, most=13)
    assert few[2] == [12, 12, 8] and few[4] == sizes[4]
    for rows in (together, also):
        for (view, metrics, samples), (other, wanted, kept) in zip(rows, alone, strict=True):
            assert view == other and metrics == wanted and samples["ids"].tolist() == list(range(32))
            assert torch.allclose(samples["logits"], kept["logits"], atol=1e-6)


def test_what_waits_at_the_end_of_a_part_is_not_joined_with_the_next(toy, monkeypatch) -> None:
    task, model = toy
    monkeypatch.setattr(Toy, "parts", lambda self, split: ("train", split))
    seen: list[tuple[str, int]] = []
    meter = task.meter("test")
    monkeypatch.setattr(Toy, "meter", lambda self, split: meter)
    update = meter.update
    meter.update = lambda records, batch, view, part: (
        seen.append((part, len(batch))),
        update(records, batch, view, part),
    )
    sizes, _ = passes_of(task, model, task.views([2]), batch=24, token_budget=1000)
    counts = {part: sum(n for p, n in seen if p == part) for part in ("train", "test")}
    assert counts == {part: len(task.dataset(part)) for part in counts} and sizes[2] == list(counts.values())


def test_only_batches_of_one_form_are_joined() -> None:
    def batch(count: int, side: int = 4, **targets) -> Batch:
        return Batch(torch.arange(count), torch.zeros(count, 3, side, side), targets)

    one = batch(2, label=torch.zeros(2), boxes=[1, 2], pair=(torch.zeros(2, 3), None))
    assert joinable(one, one) and joined([one]) is one
    both = joined([one, one])
    assert len(both) == 4 and both.targets["boxes"] == [1, 2, 1, 2] and both.targets["pair"][0].shape == (4, 3)
    assert not joinable(one, batch(2, side=5, label=torch.zeros(2), boxes=[1, 2], pair=(torch.zeros(2, 3), None)))
    assert not joinable(batch(2, words=torch.zeros(2, 5)), batch(2, words=torch.zeros(2, 6)))
    waiting, wide = Waiting(), batch(2, side=5)
    assert [len(g) for g in waiting.add(batch(2), 9)] == [] and [len(g) for g in waiting.add(wide, 9)] == [1]
    assert waiting.rest() == [wide] and waiting.rest() == []


def test_defaults_by_device() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [evaluation_batch(gpu, side) for side in (120, 240, 480, 720)] == [512, 512, 128, 56]
    assert {evaluation_batch(cpu, side) for side in (120, 240, 480, 720)} == {64}
    assert token_limit(gpu, None) == 57_600 and token_limit(cpu, None) is None
    assert token_limit(gpu, 1000) == token_limit(cpu, 1000) == 1000
    assert [joined_pictures(side) for side in (120, 240, 480, 720)] == [MOST_JOINED, MOST_JOINED, 512, 227]
    # a CPU joins nothing unless asked, also where memory ran out and set a budget
    budget = Budget(token_limit(cpu, None))
    assert budget.room(25) == 0 and budget.images(25, 64) == 64
    budget.halve(900, 64)
    assert budget.room(25) == 0 and budget.images(900, 64) == 32
    assert [Budget(token_limit(gpu, None)).room(grid**2) for grid in (5, 8, 15, 30)] == [2048, 900, 256, 64]


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
