"""Gradients of each example out of one pass: those of one pass an example, for any model; fallbacks; processes."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from detection_tools import TinyBackbone, drawn
from example_models import LENGTH, PIECES, Model, Words, batch_of
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from benchmarks.engine.running.processes import end_group, end_process
from benchmarks.engine.training.loop import TaskStep
from benchmarks.engine.training.per_example import clipping, gradients, layers
from benchmarks.engine.training.per_example.clipping import ExampleClipping
from benchmarks.engine.training.per_example.layers import SeparateGradients
from tasks import build_task
from tasks.contract import Batch, TaskError
from tasks.detection.model.detector import Detector
from tasks.examples import at_once
from tasks.text.towers import build_text_tower


def clipped(
    task: Any, model: nn.Module, batch: Batch, together: bool, clip: float = 1.0, grid: Any = (4, 4), **more: Any
) -> tuple[dict[str, float], list[Tensor | None], ExampleClipping]:
    accelerator = more.pop("accelerator", None) or Accelerator(cpu=True)
    way = ExampleClipping(task, model, TaskStep(task, model), clip, accelerator, [])
    way.together = together
    parameters = [p for p in model.parameters() if p.requires_grad]
    values = way(batch, grid, parameters)
    gradients = [p.grad for p in parameters]
    for parameter in parameters:
        parameter.grad = None
    return values, gradients, way


def assert_equal(found: list[Tensor], wanted: list[Tensor], rtol: float) -> None:
    """The whole gradient to `rtol` of its norm, and each parameter's, as far as it can be told from rounding."""
    whole, gaps = (torch.cat([t.flatten() for t in part]).norm() for part in (wanted, map(torch.sub, found, wanted)))
    assert gaps <= rtol * whole
    for a, b in zip(found, wanted, strict=True):
        assert (a - b).norm() <= rtol * max(b.norm(), 0.1 * whole), (a.shape, (a - b).norm() / b.norm())


@settings(max_examples=25, deadline=None)
@given(
    pieces=st.lists(st.sampled_from(sorted(PIECES)), max_size=4), tied=st.booleans(), frozen=st.booleans(),
    count=st.integers(1, 5), seed=st.integers(0, 99), balance=st.sampled_from([0, 16, 1e9]),
    clip=st.sampled_from([1e-3, 1.0, 1e6]), small=st.sampled_from([0, 20, 1e9]),
)  # fmt: skip
@example(pieces=["norms", "norms"], tied=False, frozen=False, count=1, seed=0, balance=0, clip=1.0, small=0)
def test_one_pass_equals_one_pass_an_example(
    pieces: list[str], tied: bool, frozen: bool, count: int, seed: int, balance: float, clip: float, small: float
) -> None:
    torch.manual_seed(seed)
    model, batch = Model(pieces, tied, frozen).double(), batch_of(count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(layers.BALANCE, "cpu", balance)
        patch.setitem(gradients.SMALL, "cpu", small)
        values, found, way = clipped(Words(), model, batch, True, clip)
    assert way.together and not way.notes
    wanted_values, wanted, _ = clipped(Words(), model, batch, False, clip)
    assert values == pytest.approx(wanted_values, rel=1e-6) and values["scale"] == 2
    assert_equal(found, wanted, 1e-9)
    loss = Words().loss(model, batch, None)["loss"].detach()
    assert values["loss"] == pytest.approx(float(loss), rel=1e-6)


@pytest.mark.parametrize("piece", sorted(PIECES))
def test_each_layer_in_single_and_reduced_precision(piece: str) -> None:
    torch.manual_seed(1)
    model, batch = Model([piece, "linear"], True, False), batch_of(4, torch.float32)
    assert_equal(*(clipped(Words(), model, batch, t)[1] for t in (True, False)), 1e-5)
    reduced = Accelerator(cpu=True)
    reduced.autocast = lambda: torch.autocast("cpu", torch.bfloat16)
    found, wanted = (clipped(Words(), model, batch, t, accelerator=reduced) for t in (True, False))
    assert found[2].together and found[0] == pytest.approx(wanted[0], rel=0.02)
    gap = torch.cat([(a - b).flatten() for a, b in zip(found[1], wanted[1], strict=True)]).norm()
    assert gap < 0.02 * torch.cat([b.flatten() for b in wanted[1]]).norm()


def detection(tmp_path: Any) -> tuple[Any, nn.Module, Batch]:
    drawn(tmp_path / "toy")
    task = build_task("detection", root=tmp_path, options={"data": "toy", "side": 48, "zero_shot": False})
    torch.manual_seed(0)
    data, generator = task.dataset("train"), torch.Generator().manual_seed(3)
    batch = task.collate([(i, *data.sample(i % len(data), generator)) for i in range(7)])
    return task, Detector(TinyBackbone(), build_text_tower("tiny")).train(), batch


def test_detection_with_its_matching_equals_the_loop(tmp_path: Any) -> None:
    task, model, batch = detection(tmp_path)
    for clip in (0.1, 1e6):
        values, found, way = clipped(task, model, batch, True, clip)
        wanted_values, wanted, _ = clipped(task, model, batch, False, clip)
        assert way.together and values == pytest.approx(wanted_values, rel=1e-5)
        assert_equal(found, wanted, 1e-5)


def test_chunks_change_nothing_and_follow_the_gradients_bytes(tmp_path: Any, monkeypatch: Any, capsys: Any) -> None:
    torch.manual_seed(0)
    model, batch = Model(["linear"], False, False).double(), batch_of(7)
    wanted = clipped(Words(), model, batch, True)
    sizes: list[int] = []
    plain = ExampleClipping.gradients

    def counted(self: Any, chunk: Batch, *rest: Any) -> Any:
        sizes.append(len(chunk))
        if len(chunk) > 2 and limited:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return plain(self, chunk, *rest)

    monkeypatch.setattr(ExampleClipping, "gradients", counted)
    limited = False
    dense = sum(p.numel() * p.element_size() for n, p in model.named_parameters() if n != "table.weight")
    monkeypatch.setattr(clipping, "HOST_BYTES", 3 * dense + 1)
    assert_equal(clipped(Words(), model, batch, True)[1], wanted[1], 1e-12)
    assert sizes == [3, 3, 1]
    limited, sizes[:] = True, []
    monkeypatch.setattr(clipping, "HOST_BYTES", 1 << 30)
    values, found, way = clipped(Words(), model, batch, True)
    assert_equal(found, wanted[1], 1e-12)
    assert way.together and sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1] and values == pytest.approx(wanted[0])
    assert way.notes == [
        f"out of memory at grid 4x4: passes of {a} examples halved to {b}" for a, b in ((7, 3), (3, 1))
    ]


@pytest.mark.parametrize("fails_in", ["", "forward", "backward"])
@pytest.mark.parametrize("balance", [0, 1e9])
def test_a_pass_leaves_no_graph_behind_not_even_one_that_fails(
    tmp_path: Any, monkeypatch: Any, fails_in: str, balance: float
) -> None:
    task, model, batch = detection(tmp_path)
    monkeypatch.setitem(layers.BALANCE, "cpu", balance)
    way = ExampleClipping(task, model, TaskStep(task, model), 1.0, Accelerator(cpu=True), [])
    passes: list[weakref.ref[SeparateGradients]] = []

    class Watched(SeparateGradients):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            passes.append(weakref.ref(self))

    monkeypatch.setattr(clipping, "SeparateGradients", Watched)
    if fails_in:
        plain, calls = getattr(layers._Linear, fails_in), []

        def failing(*given: Any) -> Any:
            calls.append(given[0])
            if len(calls) == 9:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return plain(*given)

        monkeypatch.setattr(layers._Linear, fails_in, staticmethod(failing))
    parameters = [p for p in model.parameters() if p.requires_grad]
    way(batch, (4, 4), parameters)
    assert len(way.notes) == bool(fails_in) and way.together
    if fails_in:
        calls.clear()
    del batch
    gc.collect()
    assert len(passes) == (4 if fails_in else 1) and not any(seen() is not None for seen in passes)


def test_what_cannot_be_traced_is_passed_one_by_one_and_said(capsys: Any) -> None:
    torch.manual_seed(0)
    model = Model(["linear"], False, False).double()
    model.pieces.append(nn.Dropout(0.5))
    batch = batch_of(3)

    def branching(batch: Batch) -> None:
        if batch.images.sum() > 0:
            torch.rand(())

    torch.manual_seed(7)
    _, wanted, _ = clipped(Words(branching), model, batch, False)
    torch.manual_seed(7)  # noise is that of a run which never tried
    _, found, way = clipped(Words(branching), model, batch, True)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert not way.together and len(way.notes) == 1
    assert capsys.readouterr().out.splitlines() == [f"  {way.notes[0]}"]
    assert way.notes[0].startswith("per-example clipping takes one pass an example: RuntimeError")
    way(batch, (4, 4), list(model.parameters()))  # it is not tried again
    assert len(way.notes) == 1


class Hidden(torch.autograd.Function):
    """What torch's functions are not seen in."""

    @staticmethod
    def forward(x: Tensor, scale: Tensor) -> Tensor:
        return x * scale

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, scale = ctx.saved_tensors
        return gradient * scale, (gradient * x).sum()

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, scale: Tensor) -> tuple[Tensor, int]:
        return Hidden.apply(x, scale), 0


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return Hidden.apply(x, self.scale)


@pytest.mark.parametrize("what", ["hidden", "lists", "batch norm"])
def test_no_gradient_is_ever_wrong(what: str) -> None:
    """What one pass would mix between examples is told from what it keeps apart."""
    torch.manual_seed(0)
    model, batch = Model(["linear"], False, False).double(), batch_of(3)
    if what == "hidden":
        model.pieces.append(Scaled().double())
    if what == "lists":
        batch.images = list(batch.images)
        plain = model.forward
        model.forward = lambda images, words: plain(torch.stack(images), words)
    if what == "batch norm":
        model.pieces.append(nn.BatchNorm1d(LENGTH).double())
    _, found, way = clipped(Words(), model, batch, True)
    assert not way.together and len(way.notes) == 1
    assert_equal(found, clipped(Words(), model, batch, False)[1], 1e-12)


def test_an_error_of_the_task_is_its_own(capsys: Any) -> None:
    def refuse(batch: Batch) -> None:
        raise TaskError("query 3 is empty")

    with pytest.raises(TaskError, match="query 3 is empty"):
        clipped(Words(refuse), Model([], False, False).double(), batch_of(2), True)
    assert capsys.readouterr().out == ""


def test_every_example_has_noise_of_its_own() -> None:
    model = Model([], False, False).double()
    model.pieces.append(nn.Dropout(0.5))
    seen: list[Tensor] = []
    model.pieces[0].register_forward_hook(lambda _, __, out: seen.append(keep(out)))
    keep = at_once(lambda out: out.clone())
    batch = batch_of(1)
    same = Batch(torch.arange(4), batch.images.expand(4, -1, -1, -1), {"words": batch.targets["words"].expand(4, -1)})

    class Recorded(Words):
        def loss(self, model: nn.Module, batch: Batch, grid: Any) -> dict[str, Any]:
            out = model(batch.images, batch.targets["words"])
            return {"loss": out.mean(), "count": 1, "zeros": (out == 0).sum()}

    torch.manual_seed(0)
    first = clipped(Recorded(), model, same, True)
    torch.manual_seed(0)
    again = clipped(Recorded(), model, same, True)
    assert first[0] == again[0] and all(torch.equal(a, b) for a, b in zip(first[1], again[1], strict=True))
    way = first[2]
    values, _ = way.gradients(same, (4, 4), list(model.parameters()))
    assert len(values["loss"].unique()) > 1


def test_a_function_at_once_sees_all_examples_and_alone_its_own() -> None:
    calls: list[tuple[int, ...]] = []

    @at_once
    def doubled(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(tuple(x.shape))
        return x * 2, (x * y).sum(1)

    x, y = torch.randn(5, 1, 3), torch.randn(1, 3)
    twice, product = torch.func.vmap(lambda a: doubled(a, y))(x)
    assert calls == [(5, 3)] and torch.equal(twice, 2 * x) and torch.allclose(product, (x * y).sum(2))
    assert torch.equal(doubled(x[:, 0], y.expand(5, 3))[0], 2 * x[:, 0]) and len(calls) == 2


WORLD = 2


def share(rank: int, folder: Any, threads: int) -> None:
    torch.set_num_threads(threads)
    import os

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORLD), "LOCAL_WORLD_SIZE": str(WORLD)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=WORLD)
    torch.manual_seed(0)
    model, batch = Model(["linear", "norms"], True, False).double(), batch_of(6)
    accelerator = Accelerator(cpu=True)
    task = Words()
    step = accelerator.prepare(TaskStep(task, model))
    exchanges: list[int] = []
    plain = torch.distributed.all_reduce

    def counted(tensor: Tensor, *args: Any, **more: Any) -> Any:
        exchanges.append(tensor.numel())
        return plain(tensor, *args, **more)

    torch.distributed.all_reduce = counted
    found = {}
    for together in (True, False):
        way = ExampleClipping(task, model, step, 0.1, accelerator, [])
        way.together = together
        parameters = list(model.parameters())
        values = way(batch[rank * 4 : 4 + rank * 2], (4, 4), parameters)  # shares of different sizes
        found[together] = values, [p.grad.clone() for p in parameters]
        model.zero_grad()
    torch.save({"found": found, "exchanges": exchanges}, folder / f"{rank}.pt")
    end_group()
    end_process()


def test_processes_share_one_exchange(tmp_path: Any) -> None:
    torch.multiprocessing.spawn(share, (tmp_path, torch.get_num_threads()), nprocs=WORLD)
    torch.manual_seed(0)
    model, batch = Model(["linear", "norms"], True, False).double(), batch_of(6)
    values, wanted, _ = clipped(Words(), model, batch, False, 0.1)
    for rank in range(WORLD):
        left = torch.load(tmp_path / f"{rank}.pt")
        assert len(left["exchanges"]) == 2  # one for each of the two ways
        for each in (True, False):
            assert left["found"][each][0] == pytest.approx(values, rel=1e-6)
            assert_equal(left["found"][each][1], wanted, 1e-9)
